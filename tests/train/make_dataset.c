/* make_dataset FILE COUNT CHANNELS [nan | damaged SAMPLE]
 *
 * Writes a dataset of random clips for the run tests: COUNT samples [CHANNELS, 4, 16, 16] with
 * prompts of one to four random rows.  "nan": SAMPLE holds a NaN, and nothing but the values tells
 * (the file has no checksums).  "damaged": the checksum of SAMPLE's video does not fit. */
#include <hdf5.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "data/dataset_writer.h"
#include "data/h5_zstd.h"
#include "dtype.h"
#include "philox.h"

enum { FRAMES = 4, SIDE = 16, TEXT_DIM = 12, MAX_ROWS = 4, CLIP = FRAMES * SIDE * SIDE };

enum Purpose { VIDEO, TEXT, NEGATIVE };

_Noreturn static void fail(const char *what) {
    fprintf(stderr, "make_dataset: %s\n", what);
    exit(1);
}

static void fill(float *out, int n_elems, int sample, enum Purpose purpose) {
    for (int i = 0; i < n_elems; i++)
        out[i] = (float)(2.0 * philox_uniform(
                                   philox(7, (uint32_t)i, (uint32_t)sample, (uint32_t)purpose, 0)
                                       .word[0]) -
                         1.0);
}

static void write_clips(const char *path, int count, int channels) {
    float negative[TEXT_DIM], text[MAX_ROWS * TEXT_DIM];
    float *video = malloc(sizeof *video * (size_t)(channels * CLIP));
    struct Error err;
    struct DatasetSpec spec = {.kind = DATASET_LATENTS,
                               .channels = channels,
                               .frames = FRAMES,
                               .height = SIDE,
                               .width = SIDE,
                               .video_element = DTYPE_F32,
                               .text_element = DTYPE_F32,
                               .text_dim = TEXT_DIM,
                               .normalised = true,
                               .negative_prompt = "nothing",
                               .negative_rows = negative,
                               .n_negative_rows = 1,
                               .zstd_level = 1};
    fill(negative, TEXT_DIM, 0, NEGATIVE);
    struct DatasetWriter *writer = dataset_writer_open(path, &spec, &err);
    for (int i = 0; writer && i < count; i++) {
        char prompt[32];
        int n_rows = 1 + i % MAX_ROWS;
        snprintf(prompt, sizeof prompt, "clip %d", i);
        fill(video, channels * CLIP, i, VIDEO);
        fill(text, n_rows * TEXT_DIM, i, TEXT);
        if (!dataset_writer_append(writer, prompt, video, text, n_rows, &err)) fail(err.text);
    }
    if (!writer || !dataset_writer_finish(writer, &err)) fail(err.text);
    free(video);
}

/* Puts plain latents with one NaN in the place of the good ones. */
static void put_nan(hid_t file, int count, int channels, int sample) {
    hsize_t shape[] = {(hsize_t)count, (hsize_t)channels, FRAMES, SIDE, SIDE};
    float *values = calloc((size_t)(count * channels * CLIP), sizeof *values);
    values[sample * channels * CLIP + 5] = NAN;
    hid_t space = H5Screate_simple(5, shape, NULL);
    if (H5Ldelete(file, "latents", H5P_DEFAULT) < 0 ||
        H5Ldelete(file, "checksums", H5P_DEFAULT) < 0)
        fail("cannot remove what the writer wrote");
    hid_t set =
        H5Dcreate2(file, "latents", H5T_IEEE_F32LE, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    if (H5Dwrite(set, H5T_NATIVE_FLOAT, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) < 0)
        fail("cannot write latents");
    H5Dclose(set);
    H5Sclose(space);
    free(values);
}

static void damage_checksum(hid_t file, int sample) {
    hsize_t start[] = {(hsize_t)sample, 0}, n[] = {1, 1};
    uint32_t wrong = 0;
    hid_t set = H5Dopen2(file, "checksums", H5P_DEFAULT), space = H5Dget_space(set);
    hid_t memory = H5Screate_simple(2, n, NULL);
    if (H5Sselect_hyperslab(space, H5S_SELECT_SET, start, NULL, n, NULL) < 0 ||
        H5Dwrite(set, H5T_NATIVE_UINT32, memory, space, H5P_DEFAULT, &wrong) < 0)
        fail("cannot write a checksum");
    H5Sclose(memory);
    H5Sclose(space);
    H5Dclose(set);
}

int main(int argc, char **argv) {
    if (argc != 4 && argc != 6) fail("FILE COUNT CHANNELS [nan | damaged SAMPLE]");
    int count = atoi(argv[2]), channels = atoi(argv[3]);
    write_clips(argv[1], count, channels);
    if (argc == 4) return 0;
    h5_zstd_register();
    hid_t file = H5Fopen(argv[1], H5F_ACC_RDWR, H5P_DEFAULT);
    if (file < 0) fail("cannot open what the writer wrote");
    if (strcmp(argv[4], "nan") == 0)
        put_nan(file, count, channels, atoi(argv[5]));
    else
        damage_checksum(file, atoi(argv[5]));
    H5Fclose(file);
    return 0;
}
