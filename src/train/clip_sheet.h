/* Contact sheets of clips: one row for each prompt, one column for each sampler.
 *
 * Pixels are shown as they are.  Of latents the first three channels stand for red, green and blue,
 * each shifted and scaled clip by clip so that two standard deviations fill the range. */
#ifndef TMD_CLIP_SHEET_H
#define TMD_CLIP_SHEET_H

#include "data/dataset.h"

struct ClipColumn {
    const char *title;  /* NULL in all columns: no line of titles */
    const float *clips; /* [n_rows, C, F, H, W], of the shape that `info` gives */
};

struct ClipSheet {
    const char *title;
    const struct DatasetInfo *info; /* shape and kind of the clips, frames per second */
    int n_rows, n_columns;
    const char *const *prompts; /* [n_rows] */
    const struct ClipColumn *columns;
};

/* Writes <stem>.png and <stem>.gif, each whole or not at all. */
bool clip_sheet_write(const struct ClipSheet *sheet, const char *stem, struct Error *err);

#endif
