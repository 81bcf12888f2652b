/* tmd data shapes: draws clips, embeds their captions word by word, writes a dataset of pixels.
 *
 * Sample i depends on seed and i alone.  --holdout continues the count into a second file, so that
 * no clip of one file is in the other; both hold every combination equally often, up to one. */
#include "data/cmd_data_shapes.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "args.h"
#include "data/dataset_writer.h"
#include "data/h5_element.h"
#include "data/shapes.h"
#include "data/toy_text.h"

struct Flags {
    const char *out, *holdout, *dtype, *negative;
    int64_t count, holdout_count, frames, height, width, seed, text_dim, zstd_level;
    double fps;
};

#define INT_FLAG(...) ARG_INT_ROW(struct Flags, __VA_ARGS__)
#define TEXT_FLAG(...) ARG_TEXT_ROW(struct Flags, __VA_ARGS__)

static const struct Arg ARGS[] = {
    TEXT_FLAG("out", out, NULL, "the dataset to write"),
    INT_FLAG("count", count, NULL, 1, 1e8, "clips in it"),
    TEXT_FLAG("holdout", holdout, "", "a second dataset, of clips that the first does not hold"),
    INT_FLAG("holdout-count", holdout_count, "512", 1, 1e8, "clips in the second"),
    INT_FLAG("frames", frames, "4", SHAPE_MIN_FRAMES, SHAPE_MAX_FRAMES, "frames of a clip"),
    INT_FLAG("height", height, "16", SHAPE_MIN_SIDE, SHAPE_MAX_SIDE, "rows of a frame"),
    INT_FLAG("width", width, "16", SHAPE_MIN_SIDE, SHAPE_MAX_SIDE, "columns of a frame"),
    INT_FLAG("seed", seed, "1", 0, 9e15, "another seed, other clips"),
    INT_FLAG("text-dim", text_dim, "32", 1, DATASET_MAX_TEXT_DIM, "elements of a word's row"),
    TEXT_FLAG("negative", negative, "nothing", "the negative prompt"),
    {.name = "dtype",
     .type = ARG_CHOICE,
     .offset = offsetof(struct Flags, dtype),
     .fallback = "u8",
     .choices = "u8|f16|bf16|f32",
     .help = "how pixels are stored"},
    {.name = "fps",
     .type = ARG_REAL,
     .offset = offsetof(struct Flags, fps),
     .fallback = "4",
     .min = 0.1,
     .max = 1000,
     .help = "frames per second, for players"},
    INT_FLAG("zstd-level", zstd_level, "3", 1, 19, "effort of compression"),
};

static const struct ArgTable TABLE = {
    .usage = "tmd data shapes --out FILE --count N [flags]",
    .help =
        "Draws captioned clips (\"a red square moving left\": 4 shapes, 4 colours, 4 directions, "
        "each combination equally often) and writes them as a dataset of pixels.",
    .args = ARGS,
    .n_args = sizeof ARGS / sizeof ARGS[0],
};

static int element_of(const char *dtype) {
    enum Dtype element;
    if (strcmp(dtype, "u8") == 0) return H5_U8;
    TMD_CHECK(dtype_parse(dtype, &element), "the table offers an unknown type %s", dtype);
    return (int)element;
}

/* The rows of a prompt, which the caller frees; *n_rows may be 0. */
static float *embed(const char *prompt, int64_t text_dim, int64_t *n_rows) {
    *n_rows = toy_text_embed(prompt, text_dim, NULL, 0);
    float *rows = xmalloc((unsigned long)(*n_rows * text_dim) * sizeof *rows);
    toy_text_embed(prompt, text_dim, rows, *n_rows);
    return rows;
}

static bool append_clips(struct DatasetWriter *writer, const struct Flags *flags, int64_t first,
                         int64_t count, struct Error *err) {
    int64_t n_elems = SHAPE_CHANNELS * flags->frames * flags->height * flags->width;
    float *clip = xmalloc((unsigned long)n_elems * sizeof *clip);
    bool appended = true;
    for (int64_t i = first; appended && i < first + count; i++) {
        uint64_t seed = (uint64_t)flags->seed, sample = (uint64_t)i;
        struct ShapeSpec spec = shapes_sample_spec(seed, sample);
        char caption[SHAPE_CAPTION_BYTES];
        int64_t n_rows;
        shapes_caption(spec, caption);
        shapes_draw(clip, spec, shapes_sample_pose(seed, sample), flags->frames, flags->height,
                    flags->width);
        float *rows = embed(caption, flags->text_dim, &n_rows);
        appended = dataset_writer_append(writer, caption, clip, rows, n_rows, err);
        free(rows);
    }
    free(clip);
    return appended;
}

/* Writes samples first .. first+count-1 as a file of their own. */
static bool write_file(const char *path, const struct Flags *flags, int64_t first, int64_t count,
                       struct Error *err) {
    int64_t n_negative;
    float *negative = embed(flags->negative, flags->text_dim, &n_negative);
    struct DatasetSpec spec = {
        .kind = DATASET_PIXELS,
        .channels = SHAPE_CHANNELS,
        .frames = flags->frames,
        .height = flags->height,
        .width = flags->width,
        .video_element = element_of(flags->dtype),
        .text_element = DTYPE_F32,
        .text_dim = flags->text_dim,
        .fps = flags->fps,
        .text_encoder = TOY_TEXT_ENCODER,
        .negative_prompt = flags->negative,
        .negative_rows = negative,
        .n_negative_rows = n_negative,
        .zstd_level = (int)flags->zstd_level,
    };
    struct DatasetWriter *writer = dataset_writer_open(path, &spec, err);
    bool written = writer && append_clips(writer, flags, first, count, err);
    if (written)
        written = dataset_writer_finish(writer, err);
    else
        dataset_writer_discard(writer);
    free(negative);
    return written;
}

int cmd_data_shapes(int argc, char **argv) {
    struct Flags flags;
    struct Operands none;
    int exit_code;
    if (!args_begin(&TABLE, argc, argv, &flags, &none, &exit_code)) return exit_code;
    struct Error err;
    if (!flags.negative) flags.negative = ""; /* --negative "" */
    if (!write_file(flags.out, &flags, 0, flags.count, &err)) return error_report(&err);
    printf("%s: %lld clips of %lld frames, %lld x %lld\n", flags.out, (long long)flags.count,
           (long long)flags.frames, (long long)flags.height, (long long)flags.width);
    if (!flags.holdout) return EXIT_OK;
    if (!write_file(flags.holdout, &flags, flags.count, flags.holdout_count, &err))
        return error_report(&err);
    printf("%s: %lld clips held out\n", flags.holdout, (long long)flags.holdout_count);
    return EXIT_OK;
}
