/* Captions of video files: a text file with a line `name<TAB>caption` for each.
 *
 * `name` is the video's file name without its folder, with or without its extension.  Empty lines
 * are skipped; the text is UTF-8. */
#ifndef TMD_DATA_VIDEO_CAPTIONS_H
#define TMD_DATA_VIDEO_CAPTIONS_H

#include <stdbool.h>

#include "error.h"

struct Captions;

/* NULL after an error, which names file and line. */
struct Captions *captions_open(const char *path, struct Error *err);
/* The caption of the video at `video_path`, as long-lived as the captions; NULL after an error. */
const char *captions_find(const struct Captions *captions, const char *video_path,
                          struct Error *err);
/* Harmless on NULL. */
void captions_close(struct Captions *captions);

#endif
