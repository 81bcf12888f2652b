/* Samples batch by batch, appends each to the dataset, and draws a contact sheet of the first
 * clips.  Clip i has the prompt i mod P, where P is the number of prompts, and noise that is a
 * function of (sampler.seed, i). */
#include "train/cmd_sample.h"

#include <stdlib.h>
#include <string.h>

#include "args.h"
#include "data/dataset_writer.h"
#include "minmax.h"
#include "train/clip_sheet.h"
#include "train/data_fit.h"
#include "train/folders.h"
#include "train/prompt_file.h"
#include "train/prompt_set.h"
#include "train/sampling_load.h"

enum { SHEET_ROWS = 8, ZSTD_LEVEL = 3 };

struct Flags {
    const char *ckpt, *role, *out, *prompts;
    int64_t count, batch;
    bool no_ema;
};

static const struct Arg ARGS[] = {
    {"out", ARG_TEXT, offsetof(struct Flags, out), NULL, 0, 0, NULL,
     "FILE.h5, or a folder for samples.h5; the contact sheet .png and .gif lie beside it"},
    {"ckpt", ARG_TEXT, offsetof(struct Flags, ckpt), "", 0, 0, NULL,
     "a run's folder or a checkpoint (default: the folder that CONFIG names, out)"},
    {"role", ARG_CHOICE, offsetof(struct Flags, role), "trained", 0, 0, "trained|teacher|student",
     "which network; trained: the one that CONFIG's stage trains"},
    {"count", ARG_INT, offsetof(struct Flags, count), "16", 1, 1e9, NULL, "clips to sample"},
    {"prompts", ARG_TEXT, offsetof(struct Flags, prompts), "", 0, 0, NULL,
     "a file of prompts, one a line, taken in turn (default: those of the data set)"},
    {"batch", ARG_INT, offsetof(struct Flags, batch), "16", 1, STUDENT_MAX_BATCH, NULL,
     "clips sampled at a time"},
    {"no-ema", ARG_SWITCH, offsetof(struct Flags, no_ema), NULL, 0, 0, NULL,
     "the weights of the last step, also where averaged ones are there"},
};

static const struct ArgTable TABLE = {
    .usage = "tmd sample CONFIG [section.key=value ...] --out PATH [flags]",
    .help =
        "Samples from a checkpoint into a data set and draws a contact sheet of its first clips.\n"
        "A student uses its own sampler and grid (student: outer_steps, inner_steps, ...), the\n"
        "teacher that of the section sampler:; so sampler.steps=10 sampler.guidance=3 change it,\n"
        "sampler.seed=1 gives other clips.  Shape and text of the clips are those of data.files.",
    .args = ARGS,
    .n_args = sizeof ARGS / sizeof ARGS[0],
    .min_operands = 1,
    .max_operands = -1,
};

struct Job {
    struct Flags flags;
    struct Config config;
    struct Dataset *dataset;
    const struct DatasetInfo *info;
    struct PromptFile file;
    int64_t n_prompts;
    struct LoadedSampler sampler; /* be NULL: not loaded */
    struct DatasetWriter *writer;
    char *stem;   /* path of the data set without ".h5" */
    float *clips; /* [batch, C, F, H, W] */
    int n_shown;  /* clips on the sheet so far */
    float *shown; /* [SHEET_ROWS, C, F, H, W] */
    char *shown_prompts[SHEET_ROWS];
};

/* ---- opening ---- */

static bool read_config(struct Job *job, const struct Operands *operands, struct Error *err) {
    bool ok = config_load(&job->config, operands->items[0], err);
    for (int i = 1; ok && i < operands->n; i++)
        ok = config_override(&job->config, operands->items[i], err);
    if (ok && !job->config.data.files.n)
        return error_set(err,
                         "data.files: the shape of the clips is that of a data set; none given");
    if (ok && !job->flags.ckpt) job->flags.ckpt = job->config.out;
    if (ok && !*job->flags.ckpt)
        return error_set(err, "--ckpt is missing, and CONFIG names no folder, out");
    return ok;
}

static enum Role role_of(const struct Job *job) {
    if (strcmp(job->flags.role, "trained") == 0) return networks_plan(&job->config).main;
    return strcmp(job->flags.role, "teacher") == 0 ? ROLE_TEACHER : ROLE_STUDENT;
}

static bool open_data(struct Job *job, struct Error *err) {
    const struct StringList *files = &job->config.data.files;
    job->dataset = dataset_open(files->items, files->n, err);
    if (!job->dataset) return false;
    job->info = dataset_info(job->dataset);
    if (!data_fits(&job->config, job->dataset, files->items[0], err)) return false;
    if (job->flags.prompts && !prompt_file_read(&job->file, job->flags.prompts, err)) return false;
    job->n_prompts = job->flags.prompts ? job->file.n : job->info->n_samples;
    return true;
}

static bool load_sampler(struct Job *job, enum Role role, struct Error *err) {
    struct SampledModel model = {
        .path = job->flags.ckpt, .role = role, .use_ema = !job->flags.no_ema};
    int64_t n_elems = dataset_video_elems(job->dataset), batch = job->flags.batch;
    if (!loaded_sampler_open(&job->sampler, &job->config, model, data_video_shape(job->info), batch,
                             err))
        return false;
    job->clips = xmalloc((size_t)(batch * n_elems) * sizeof *job->clips);
    job->shown = xmalloc((size_t)(SHEET_ROWS * n_elems) * sizeof *job->shown);
    return true;
}

/* "FILE.h5", or "<folder>/samples.h5"; the stem is that without its end. */
static bool choose_path(struct Job *job, struct Error *err) {
    const char *out = job->flags.out;
    size_t length = strlen(out);
    if (length > 3 && strcmp(out + length - 3, ".h5") == 0) {
        job->stem = xprintf("%.*s", (int)(length - 3), out);
        return true;
    }
    job->stem = xprintf("%s/samples", out);
    return folder_make(out, err);
}

static bool open_writer(struct Job *job, struct Error *err) {
    const struct DatasetInfo *info = job->info;
    int64_t text_len = job->config.model.text_len;
    if (!choose_path(job, err)) return false;
    float *negative = xmalloc((size_t)(text_len * info->text_dim) * sizeof *negative);
    char *path = xprintf("%s.h5", job->stem);
    bool ok = dataset_read_negative(job->dataset, text_len, negative, err);
    if (ok) {
        struct DatasetSpec spec = {
            .kind = info->kind,
            .channels = info->channels,
            .frames = info->frames,
            .height = info->height,
            .width = info->width,
            .video_element = info->kind == DATASET_PIXELS ? info->video_element : (int)DTYPE_F32,
            .text_element = info->text_element,
            .text_dim = info->text_dim,
            .normalised = info->kind == DATASET_LATENTS,
            .fps = info->fps,
            .video_encoder = info->video_encoder,
            .text_encoder = info->text_encoder,
            .negative_prompt = info->negative_prompt,
            .negative_rows = negative,
            .n_negative_rows = prompt_text_rows(negative, text_len, info->text_dim),
            .zstd_level = ZSTD_LEVEL,
        };
        job->writer = dataset_writer_open(path, &spec, err);
    }
    free(path);
    free(negative);
    return job->writer != NULL;
}

static bool prepare(struct Job *job, const struct Operands *operands, struct Error *err) {
    if (!read_config(job, operands, err)) return false;
    enum Role role = role_of(job); /* before the check, which makes a sampler's case of the stage */
    return sampling_config_check(&job->config, role, err) && open_data(job, err) &&
           load_sampler(job, role, err) && open_writer(job, err);
}

/* ---- sampling ---- */

/* What a file of pixels may hold; NaN stays, for the writer to refuse. */
static void clip_pixels(float *values, int64_t n_elems) {
    for (int64_t i = 0; i < n_elems; i++) {
        if (values[i] < -1.0f) values[i] = -1.0f;
        if (values[i] > 1.0f) values[i] = 1.0f;
    }
}

static bool append(struct Job *job, const struct PromptSet *prompts, struct Error *err) {
    int64_t n_elems = dataset_video_elems(job->dataset),
            n_text = prompts->text_len * prompts->text_dim;
    for (int64_t i = 0; i < prompts->n; i++) {
        const float *clip = job->clips + i * n_elems, *text = prompts->text + i * n_text;
        int64_t n_rows = prompt_text_rows(text, prompts->text_len, prompts->text_dim);
        if (!dataset_writer_append(job->writer, prompts->prompts[i], clip, text, n_rows, err))
            return false;
        if (job->n_shown == SHEET_ROWS) continue;
        memcpy(job->shown + job->n_shown * n_elems, clip, (size_t)n_elems * sizeof *clip);
        job->shown_prompts[job->n_shown++] = xstrdup(prompts->prompts[i]);
    }
    return true;
}

/* Clips first .. first + n - 1, whose prompts follow one another. */
static bool sample_batch(struct Job *job, int64_t first, int64_t n, struct Error *err) {
    struct PromptSet prompts;
    int64_t text_len = job->config.model.text_len, prompt = first % job->n_prompts;
    const char *const *lines = (const char *const *)job->file.lines;
    bool ok = lines ? prompt_set_of_texts(&prompts, job->dataset, lines + prompt, n, text_len, err)
                    : prompt_set_of_samples(&prompts, job->dataset, prompt, n, text_len, err);
    if (!ok) return false;
    loaded_sampler_run(&job->sampler, (struct SampleSet){.first = first,
                                                         .n = n,
                                                         .text = prompts.text,
                                                         .neg_text = prompts.neg_text,
                                                         .clips = job->clips});
    if (job->info->kind == DATASET_PIXELS)
        clip_pixels(job->clips, n * dataset_video_elems(job->dataset));
    ok = append(job, &prompts, err);
    prompt_set_free(&prompts);
    return ok;
}

static bool sample_all(struct Job *job, struct Error *err) {
    for (int64_t at = 0, n; at < job->flags.count; at += n) {
        n = smaller(job->flags.batch, job->flags.count - at);
        n = smaller(n, job->n_prompts - at % job->n_prompts);
        if (!sample_batch(job, at, n, err)) return false;
    }
    struct DatasetWriter *writer = job->writer;
    job->writer = NULL;
    return dataset_writer_finish(writer, err);
}

static bool write_sheet(const struct Job *job, struct Error *err) {
    struct ClipColumn column = {.clips = job->shown};
    struct ClipSheet sheet = {.info = job->info,
                              .n_rows = job->n_shown,
                              .n_columns = 1,
                              .prompts = (const char *const *)job->shown_prompts,
                              .columns = &column};
    return clip_sheet_write(&sheet, job->stem, err);
}

static void job_free(struct Job *job) {
    dataset_writer_discard(job->writer);
    if (job->sampler.be) loaded_sampler_close(&job->sampler);
    dataset_close(job->dataset);
    prompt_file_free(&job->file);
    for (int i = 0; i < job->n_shown; i++) free(job->shown_prompts[i]);
    free(job->stem);
    free(job->clips);
    free(job->shown);
    config_free(&job->config);
}

int cmd_sample(int argc, char **argv) {
    struct Operands operands;
    struct Error err;
    int exit_code;
    struct Job job = {0};
    if (!args_begin(&TABLE, argc, argv, &job.flags, &operands, &exit_code)) return exit_code;
    config_init(&job.config);
    bool ok = prepare(&job, &operands, &err) && sample_all(&job, &err) && write_sheet(&job, &err);
    if (ok)
        printf("%s.h5: %lld clips, %.3g evaluations of the teacher each; %s.png and .gif show %d\n",
               job.stem, (long long)job.flags.count, sampler_nfe(&job.sampler.sampler), job.stem,
               job.n_shown);
    job_free(&job);
    return ok ? EXIT_OK : error_report(&err);
}
