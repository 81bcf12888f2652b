/* Datasets: captioned video samples in HDF5 files.
 *
 * FORMAT "tmd.dataset", version 1 (public; made by dataset_writer.h, or by anything that follows
 * this page).  A file holds N samples in these arrays (h5_array.h says which element types and
 * layouts are accepted):
 *
 *   /latents or        [N, C, F, H, W]: the videos, by channel, frame, row, column.  Latents are
 *   /pixels            f32, f16 or bf16.  Pixels (C = 3: red, green, blue) are f32, f16 or bf16 in
 *                      [-1, 1], or u8 in 0..255, which reads as value / 127.5 - 1.  Chunks hold
 *                      whole samples, best one each, byte-shuffled and compressed by zstd (filter
 *                      32015).
 *   /text/rows         [R, text_dim], f32, f16 or bf16: the embedding rows of all prompts, one
 *                      prompt after another, each of its real length; no padding is stored
 *   /text/offsets      [N + 1], i64: sample i has the rows offsets[i] .. offsets[i + 1] - 1;
 *                      offsets[0] = 0, offsets[N] = R, never descending, at most
 *                      DATASET_MAX_TEXT_ROWS apart
 *   /prompts           [N]: UTF-8 strings of variable length, at most DATASET_MAX_PROMPT_BYTES
 *   /negative/rows     [len, text_dim], elements as in /text/rows: the prompt that guidance steers
 *                      away from, for all samples; len may be 0.  Attributes of /negative: prompt
 *                      (text) and checksum (integer, may be missing; the CRC-32 of the bytes of the
 *                      rows followed by those of the prompt)
 *   /checksums         [N, 3], u32, may be missing: the CRC-32 (zlib's; zlib.crc32 in Python) of
 *                      the uncompressed bytes of the sample's video, of its text rows, of its
 *                      prompt
 *
 * Attributes of the root:
 *
 *   format             "tmd.dataset"
 *   format_version     1
 *   kind               "latents" or "pixels"
 *   axis_order         "NCFHW"
 *   normalised         0 or 1, latents only: whether they already are (z - mean) / std per channel
 *   latent_mean        [C], may be missing: what normalises them; for C = 16 the default is
 *   latent_std         Wan2.1's
 *   fps                frames per second of the video before any encoder; missing or 0: not known
 *   video_encoder      names for people and for comparison, may be missing
 *   text_encoder
 *
 * From Python:  f.create_dataset("latents", data=z, chunks=(1,) + z.shape[1:], shuffle=True,
 *                                **hdf5plugin.Zstd())
 * and texts of attributes as np.bytes_("latents"), for the sake of h5_attr.h.
 *
 * READING.  Several files form one dataset, their samples numbered on.  They must agree in kind,
 * shape, element types, encoders and negative prompt.  Values come as float32: latents normalised,
 * pixels in [-1, 1].  Checksums are checked where there are any, values must be finite; whatever
 * fails names file and sample (counted from 0 within its file).
 *
 * A dataset may be used by several threads; reads wait for one another. */
#ifndef TMD_DATA_DATASET_H
#define TMD_DATA_DATASET_H

#include <stdbool.h>
#include <stdint.h>

#include "error.h"

enum DatasetKind { DATASET_LATENTS, DATASET_PIXELS };

enum {
    DATASET_MAX_TEXT_ROWS = 4096,
    DATASET_MAX_TEXT_DIM = 16384,
    DATASET_MAX_CHANNELS = 1024,
    DATASET_MAX_PROMPT_BYTES = 32768,
};

struct DatasetInfo {
    enum DatasetKind kind;
    int64_t n_samples;
    int64_t channels, frames, height, width;
    int video_element, text_element; /* as stored: h5_element.h */
    int64_t text_dim;
    int64_t max_text_rows; /* of any prompt, the negative one included */
    bool normalised;       /* as stored, all files; reading normalises in any case */
    bool has_checksums;    /* all files */
    double fps;            /* of the first file; 0: not known */
    const char *video_encoder, *text_encoder; /* "" if not known */
    const char *negative_prompt;
};

struct Dataset;

/* Opens n_paths >= 1 files.  NULL after an error. */
struct Dataset *dataset_open(char *const *paths, int n_paths, struct Error *err);
/* Harmless on NULL. */
void dataset_close(struct Dataset *dataset);

/* Valid as long as the dataset is open. */
const struct DatasetInfo *dataset_info(const struct Dataset *dataset);
/* channels * frames * height * width */
int64_t dataset_video_elems(const struct Dataset *dataset);

/* video [channels, frames, height, width], text [text_len, text_dim], rows beyond the prompt's
 * zero. A prompt of more than text_len rows is an error. */
bool dataset_read_sample(struct Dataset *dataset, int64_t sample, int64_t text_len, float *video,
                         float *text, struct Error *err);
/* Only the text of a sample. */
bool dataset_read_text(struct Dataset *dataset, int64_t sample, int64_t text_len, float *text,
                       struct Error *err);
/* The negative prompt's text [text_len, text_dim]. */
bool dataset_read_negative(struct Dataset *dataset, int64_t text_len, float *text,
                           struct Error *err);
/* The prompt in fresh memory that the caller frees. */
bool dataset_read_prompt(struct Dataset *dataset, int64_t sample, char **prompt, struct Error *err);
/* The first sample with this very prompt; an error if there is none. */
bool dataset_find_prompt(struct Dataset *dataset, const char *prompt, int64_t *sample,
                         struct Error *err);

#endif
