/* Small datasets with known contents, for the tests of dataset and loader. */
#ifndef TMD_TESTS_DATASET_FIXTURE_H
#define TMD_TESTS_DATASET_FIXTURE_H

#include "data/dataset.h"
#include "data/dataset_writer.h"

enum {
    FIXTURE_CHANNELS = 3,
    FIXTURE_FRAMES = 2,
    FIXTURE_HEIGHT = 4,
    FIXTURE_WIDTH = 5,
    FIXTURE_VIDEO = FIXTURE_CHANNELS * FIXTURE_FRAMES * FIXTURE_HEIGHT * FIXTURE_WIDTH,
    FIXTURE_TEXT_DIM = 6,
    FIXTURE_MAX_ROWS = 4,
    FIXTURE_TEXT = FIXTURE_MAX_ROWS * FIXTURE_TEXT_DIM,
};

/* Pixels in f32, text in f32, checksums, the negative prompt "nothing" of two rows. */
struct DatasetSpec fixture_spec(void);

/* Sample `tag`: values are multiples of 1/64 in [-1, 1), exact in every float type of 8 bits
 * mantissa; the prompt is "sample <tag>" and has tag % (FIXTURE_MAX_ROWS + 1) rows. */
void fixture_video(float video[FIXTURE_VIDEO], int64_t tag);
/* Padded with zeros to FIXTURE_MAX_ROWS; returns the number of real rows. */
int64_t fixture_text(float text[FIXTURE_TEXT], int64_t tag);
void fixture_prompt(char prompt[32], int64_t tag);

/* Writes the samples first_tag .. first_tag + n - 1. */
bool fixture_write(const char *path, const struct DatasetSpec *spec, int64_t first_tag, int64_t n,
                   struct Error *err);

/* Opens a dataset of one file. */
struct Dataset *fixture_open(char *name, struct Error *err);

/* Opens, reads everything, closes. */
bool fixture_reads(char *name, struct Error *err);

/* Sample number `sample` is that of `tag`; the video within `tolerance`. */
void fixture_check_sample(struct Dataset *dataset, int64_t sample, int64_t tag, float tolerance);

/* A group's set-up: its scratch folder, two files in it, and HDF5 silenced. */
int fixture_set_up(void **state, char **first, char **second);

#endif
