/* Writing a dataset file (the format is in dataset.h), sample by sample.
 *
 * The file grows under a partial name and appears under its own when it is complete. */
#ifndef TMD_DATA_DATASET_WRITER_H
#define TMD_DATA_DATASET_WRITER_H

#include "data/dataset.h"

struct DatasetSpec {
    enum DatasetKind kind;
    int64_t channels, frames, height, width;
    int video_element; /* DTYPE_F32, DTYPE_F16, DTYPE_BF16; H5_U8 for pixels */
    int text_element;  /* DTYPE_F32, DTYPE_F16, DTYPE_BF16 */
    int64_t text_dim;
    bool normalised;                          /* latents: whether they come as (z - mean) / std */
    const double *latent_mean, *latent_std;   /* [channels]; both NULL: left out */
    double fps;                               /* 0: not known */
    const char *video_encoder, *text_encoder; /* NULL: not known */
    const char *negative_prompt;
    const float *negative_rows; /* [n_negative_rows, text_dim] */
    int64_t n_negative_rows;
    int zstd_level; /* 1 to 19 */
};

struct DatasetWriter;

/* Begins `path`, replacing on finish what has the name.  NULL after an error. */
struct DatasetWriter *dataset_writer_open(const char *path, const struct DatasetSpec *spec,
                                          struct Error *err);
/* Adds a sample: video [channels, frames, height, width] float32, pixels in [-1, 1] (u8: rounded,
 * values outside become the nearest); text [n_rows, text_dim] float32.  Values that are not finite,
 * or not once they have the stored type, are an error; so is a prompt that is not UTF-8.  After an
 * error the writer can only be discarded. */
bool dataset_writer_append(struct DatasetWriter *writer, const char *prompt, const float *video,
                           const float *text, int64_t n_rows, struct Error *err);
/* Completes the file and frees the writer.  After a failure nothing of the file is left. */
bool dataset_writer_finish(struct DatasetWriter *writer, struct Error *err);
/* Gives up: removes what was written, frees the writer.  Harmless on NULL. */
void dataset_writer_discard(struct DatasetWriter *writer);

#endif
