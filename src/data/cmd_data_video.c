/* tmd data video: cuts clips, pairs them with their captions, writes a dataset of pixels.
 *
 * Captions are embedded word by word (toy_text.h), which is enough to try the trainer out on real
 * pictures; a real run takes latents and text of Wan's own encoders. */
#include "data/cmd_data_video.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "args.h"
#include "data/dataset_writer.h"
#include "data/h5_element.h"
#include "data/toy_text.h"
#include "data/video_captions.h"
#include "data/video_clips.h"

struct Flags {
    const char *out, *text, *dtype, *negative;
    int64_t frames, height, width, stride, clips_per_video, text_dim, zstd_level;
    double fps;
};

#define INT_FLAG(...) ARG_INT_ROW(struct Flags, __VA_ARGS__)
#define TEXT_FLAG(...) ARG_TEXT_ROW(struct Flags, __VA_ARGS__)

static const struct Arg args[] = {
    TEXT_FLAG("out", out, NULL, "the dataset to write"),
    TEXT_FLAG("text", text, NULL, "captions: a file of lines name<TAB>caption"),
    INT_FLAG("frames", frames, "81", 1, 100000, "frames of a clip; Wan's encoder wants 4n + 1"),
    INT_FLAG("height", height, "480", 8, 8192, "rows; the video is scaled to cover, then cropped"),
    INT_FLAG("width", width, "832", 8, 8192, "columns"),
    {.name = "fps",
     .type = ARG_REAL,
     .offset = offsetof(struct Flags, fps),
     .fallback = "16",
     .min = 0.01,
     .max = 1000,
     .help = "frames per second that are taken"},
    INT_FLAG("stride", stride, "0", 0, 1e9, "frames from clip to clip; 0: no overlap, no gap"),
    INT_FLAG("clips-per-video", clips_per_video, "0", 0, 1e9, "at most; 0: all"),
    INT_FLAG("text-dim", text_dim, "64", 1, DATASET_MAX_TEXT_DIM, "elements of a word's row"),
    TEXT_FLAG("negative", negative, "nothing", "the negative prompt"),
    {.name = "dtype",
     .type = ARG_CHOICE,
     .offset = offsetof(struct Flags, dtype),
     .fallback = "u8",
     .choices = "u8|f16|bf16|f32",
     .help = "how pixels are stored"},
    INT_FLAG("zstd-level", zstd_level, "3", 1, 19, "effort of compression"),
};

static const struct ArgTable table = {
    .usage = "tmd data video --out FILE --text CAPTIONS [flags] VIDEO...",
    .help = "Cuts clips of equal length out of video files and writes them, with the captions of "
            "their files, as a dataset of pixels.",
    .args = args,
    .n_args = sizeof args / sizeof args[0],
    .min_operands = 1,
    .max_operands = -1,
};

/* Rows of a text in fresh memory that the caller frees. */
static float *embed(const char *text, int64_t text_dim, int64_t *n_rows, struct Error *err) {
    int64_t n_words = toy_text_embed(text, text_dim, NULL, 0);
    if (n_words > DATASET_MAX_TEXT_ROWS) {
        error_set(err, "a text has %lld words, more than %d: '%.60s...'", (long long)n_words,
                  DATASET_MAX_TEXT_ROWS, text);
        return NULL;
    }
    float *rows = xmalloc((unsigned long)(n_words * text_dim) * sizeof *rows);
    *n_rows = toy_text_embed(text, text_dim, rows, n_words);
    return rows;
}

static struct DatasetWriter *open_writer(const struct Flags *flags, struct Error *err) {
    int element = H5_U8;
    enum Dtype dtype;
    if (dtype_parse(flags->dtype, &dtype)) element = (int)dtype;
    int64_t n_negative_rows;
    const char *negative = flags->negative ? flags->negative : "";
    float *negative_rows = embed(negative, flags->text_dim, &n_negative_rows, err);
    if (!negative_rows) return NULL;
    struct DatasetSpec spec = {
        .kind = DATASET_PIXELS,
        .channels = 3,
        .frames = flags->frames,
        .height = flags->height,
        .width = flags->width,
        .video_element = element,
        .text_element = DTYPE_F32,
        .text_dim = flags->text_dim,
        .fps = flags->fps,
        .text_encoder = TOY_TEXT_ENCODER,
        .negative_prompt = negative,
        .negative_rows = negative_rows,
        .n_negative_rows = n_negative_rows,
        .zstd_level = (int)flags->zstd_level,
    };
    struct DatasetWriter *writer = dataset_writer_open(flags->out, &spec, err);
    free(negative_rows);
    return writer;
}

/* Where the clips of one video go, and the caption that they share. */
struct Sink {
    struct DatasetWriter *writer;
    const char *caption;
    const float *rows;
    int64_t n_rows;
};

static bool take_clip(void *context, const float *clip, struct Error *err) {
    struct Sink *sink = context;
    return dataset_writer_append(sink->writer, sink->caption, clip, sink->rows, sink->n_rows, err);
}

static bool add_video(struct DatasetWriter *writer, const struct Flags *flags,
                      const struct Captions *captions, const char *path, int64_t *n_total,
                      struct Error *err) {
    struct ClipPlan plan = {
        .frames = flags->frames,
        .height = flags->height,
        .width = flags->width,
        .fps = flags->fps,
        .stride = flags->stride ? flags->stride : flags->frames,
        .max_clips = flags->clips_per_video,
    };
    struct Sink sink = {.writer = writer, .caption = captions_find(captions, path, err)};
    if (!sink.caption) return false;
    float *rows = embed(sink.caption, flags->text_dim, &sink.n_rows, err);
    if (!rows) return false;
    sink.rows = rows;
    int64_t n_clips;
    bool good = video_clips_cut(path, &plan, take_clip, &sink, &n_clips, err);
    free(rows);
    if (good)
        printf("%s: %lld clip%s\n", path, (long long)n_clips,
               n_clips == 0   ? "s, it is too short"
               : n_clips == 1 ? ""
                              : "s");
    *n_total += n_clips;
    return good;
}

/* All captions before the first clip: a missing one shows before an hour of decoding. */
static bool check_captions(const struct Captions *captions, const struct Operands *videos,
                           struct Error *err) {
    for (int i = 0; i < videos->n; i++)
        if (!captions_find(captions, videos->items[i], err)) return false;
    return true;
}

static bool make_dataset(const struct Flags *flags, const struct Operands *videos,
                         struct Error *err) {
    struct Captions *captions = captions_open(flags->text, err);
    if (!captions) return false;
    struct DatasetWriter *writer =
        check_captions(captions, videos, err) ? open_writer(flags, err) : NULL;
    bool good = writer != NULL;
    int64_t n_clips = 0;
    for (int i = 0; i < videos->n && good; i++)
        good = add_video(writer, flags, captions, videos->items[i], &n_clips, err);
    if (good && n_clips == 0)
        good = error_set(err, "'%s' is not written: no video is as long as %lld frames at %g fps",
                         flags->out, (long long)flags->frames, flags->fps);
    captions_close(captions);
    if (good) return dataset_writer_finish(writer, err);
    dataset_writer_discard(writer);
    return false;
}

int cmd_data_video(int argc, char **argv) {
    struct Flags flags;
    struct Operands videos;
    struct Error err;
    int exit_code;
    if (!args_begin(&table, argc, argv, &flags, &videos, &exit_code)) return exit_code;
    return make_dataset(&flags, &videos, &err) ? EXIT_OK : error_report(&err);
}
