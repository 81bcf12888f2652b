/* One file of a dataset: what dataset.c needs to make several look like one.  The format is in
 * dataset.h.  A file belongs to one thread at a time. */
#ifndef TMD_DATA_DATASET_FILE_H
#define TMD_DATA_DATASET_FILE_H

#include "data/dataset.h"
#include "data/dataset_format.h"
#include "data/h5_array.h"

struct DatasetFile {
    char *path;
    hid_t file;
    enum DatasetKind kind;
    struct H5Array video, rows, prompts, negative;
    int64_t n_samples;
    int64_t *offsets;                        /* [n_samples + 1] */
    uint32_t (*checksums)[CHECKSUM_COLUMNS]; /* [n_samples]; NULL: none */
    int64_t max_text_rows;                   /* the negative prompt's included */
    bool normalised;
    double *mean, *std; /* [C] for latents that are not normalised yet, else NULL */
    double fps;
    char *video_encoder, *text_encoder, *negative_prompt;
    void *stored; /* room for one sample's video or text, whichever is longer, as stored */
};

/* Opens and checks everything but the values: afterwards the rows of every sample exist. */
bool dataset_file_open(struct DatasetFile *file, const char *path, struct Error *err);
/* Harmless on a zeroed struct. */
void dataset_file_close(struct DatasetFile *file);

/* video [C, F, H, W]: normalised latents or pixels in [-1, 1]. */
bool dataset_file_read_video(struct DatasetFile *file, int64_t sample, float *video,
                             struct Error *err);
/* text [text_len, text_dim], rows beyond the prompt's zero. */
bool dataset_file_read_text(struct DatasetFile *file, int64_t sample, int64_t text_len, float *text,
                            struct Error *err);
bool dataset_file_read_negative(struct DatasetFile *file, int64_t text_len, float *text,
                                struct Error *err);
bool dataset_file_read_prompt(struct DatasetFile *file, int64_t sample, char **prompt,
                              struct Error *err);

#endif
