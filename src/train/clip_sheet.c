/* Turns clips into the pictures of data/picture.h, latents by false colours. */
#include "train/clip_sheet.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/gif.h"

enum { RGB = 3 };

#define UNKNOWN_FPS 8.0
#define LEAST_FPS 0.1
#define MOST_FPS 50.0

/* (z - mean) / (2 std) over one channel of one clip. */
static void standardise(float *out, const float *in, int64_t n_elems) {
    double sum = 0.0, squares = 0.0;
    for (int64_t i = 0; i < n_elems; i++) sum += in[i];
    double mean = sum / (double)n_elems;
    for (int64_t i = 0; i < n_elems; i++) squares += (in[i] - mean) * (in[i] - mean);
    double deviation = sqrt(squares / (double)n_elems);
    double scale = deviation > 0.0 || isnan(deviation) ? 0.5 / deviation : 0.0;
    for (int64_t i = 0; i < n_elems; i++) out[i] = (float)((in[i] - mean) * scale);
}

/* Fresh memory with the shown channels of n_clips latents. */
static float *false_colours(const struct DatasetInfo *info, int64_t shown, const float *clips,
                            int64_t n_clips) {
    int64_t n_channel = info->frames * info->height * info->width;
    float *out = xmalloc((size_t)(n_clips * shown * n_channel) * sizeof *out);
    for (int64_t i = 0; i < n_clips; i++)
        for (int64_t c = 0; c < shown; c++)
            standardise(out + (i * shown + c) * n_channel,
                        clips + (i * info->channels + c) * n_channel, n_channel);
    return out;
}

static double shown_fps(double fps) {
    if (!(fps > 0.0)) return UNKNOWN_FPS;
    return fmin(fmax(fps, LEAST_FPS), MOST_FPS);
}

static bool write_pictures(const struct PictureSheet *picture, double fps, const char *stem,
                           struct Error *err) {
    char *png = xprintf("%s.png", stem), *gif = xprintf("%s.gif", stem);
    bool ok = picture_write_png(png, picture, err) && gif_write(gif, picture, fps, err);
    free(png);
    free(gif);
    return ok;
}

bool clip_sheet_write(const struct ClipSheet *sheet, const char *stem, struct Error *err) {
    const struct DatasetInfo *info = sheet->info;
    bool latents = info->kind == DATASET_LATENTS;
    int64_t channels = latents && info->channels > RGB ? RGB : info->channels;
    int64_t n_elems = channels * info->frames * info->height * info->width;
    int n_cells = sheet->n_rows * sheet->n_columns;
    struct PictureClip *cells = xcalloc((size_t)n_cells * sizeof *cells);
    const char **titles = xcalloc((size_t)sheet->n_columns * sizeof *titles);
    float **coloured = xcalloc((size_t)sheet->n_columns * sizeof *coloured);
    for (int c = 0; c < sheet->n_columns; c++) {
        const float *clips = sheet->columns[c].clips;
        titles[c] = sheet->columns[c].title;
        if (latents) clips = coloured[c] = false_colours(info, channels, clips, sheet->n_rows);
        for (int r = 0; r < sheet->n_rows; r++)
            cells[r * sheet->n_columns + c] = (struct PictureClip){
                clips + r * n_elems, channels, info->frames, info->height, info->width};
    }
    struct PictureSheet picture = {.title = sheet->title,
                                   .n_rows = sheet->n_rows,
                                   .n_columns = sheet->n_columns,
                                   .row_labels = sheet->prompts,
                                   .column_titles = titles[0] ? titles : NULL,
                                   .cells = cells};
    bool ok = write_pictures(&picture, shown_fps(info->fps), stem, err);
    for (int c = 0; c < sheet->n_columns; c++) free(coloured[c]);
    free(coloured);
    free(titles);
    free(cells);
    return ok;
}
