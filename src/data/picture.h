/* Contact sheets: clips in a grid, with a caption at the left of each row and a title above each
 * column, as a PNG in which the frames of a clip stand side by side, or frame by frame for an
 * animation (gif.h).
 *
 * Values are clipped to [-1, 1]; a value that is not finite shows as magenta, a colour that nobody
 * overlooks.  Small frames are enlarged by a whole factor without smoothing, large ones reduced. */
#ifndef TMD_DATA_PICTURE_H
#define TMD_DATA_PICTURE_H

#include <stdbool.h>
#include <stdint.h>

#include "error.h"

/* One clip [channels, frames, height, width] in [-1, 1]; all of them at least 1.  The first three
 * channels are red, green, blue; of fewer than three the first is grey. */
struct PictureClip {
    const float *pixels; /* NULL: the cell stays empty */
    int64_t channels, frames, height, width;
};

struct PictureSheet {
    const char *title;                /* NULL: none */
    int n_rows, n_columns;            /* at least one cell */
    const char *const *row_labels;    /* [n_rows], wrapped to a few lines; NULL: none */
    const char *const *column_titles; /* [n_columns]; NULL: none */
    const struct PictureClip *cells;  /* [n_rows, n_columns], of any sizes */
};

/* Writes the sheet as PNG.  A clip of more than 8 frames shows 8 of them, evenly spaced, the first
 * and the last among them. */
bool picture_write_png(const char *path, const struct PictureSheet *sheet, struct Error *err);

/* Device pixels of a drawn sheet. */
struct PictureImage {
    int width, height;
    uint8_t *rgb; /* [height, width, 3]; the caller frees it */
};

/* Draws frame `frame` of every clip (its last one where it has fewer).  All frames of a sheet give
 * images of the same width and height. */
bool picture_draw_frame(const struct PictureSheet *sheet, int64_t frame, struct PictureImage *image,
                        struct Error *err);

/* The most frames of any clip of the sheet. */
int64_t picture_frames(const struct PictureSheet *sheet);

#endif
