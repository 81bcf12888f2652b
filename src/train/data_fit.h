/* Whether a data set is what the configured networks can read: its channels, the width and number
 * of its text rows, the grid of its videos. */
#ifndef TMD_DATA_FIT_H
#define TMD_DATA_FIT_H

#include "data/dataset.h"
#include "train/config.h"

/* Frames, rows and columns of every video. */
struct VideoShape data_video_shape(const struct DatasetInfo *info);

/* `path` stands for the data set in messages, which name key and both values. */
bool data_fits(const struct Config *config, const struct Dataset *dataset, const char *path,
               struct Error *err);

#endif
