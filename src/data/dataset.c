/* Joins files to one dataset: compares what must agree, numbers the samples on, and lets one thread
 * read at a time. */
#include "data/dataset.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "data/dataset_file.h"

struct Dataset {
    pthread_mutex_t lock; /* files have buffers; one reader at a time */
    struct DatasetInfo info;
    int n_files;
    struct DatasetFile files[];
};

static bool disagree(const struct DatasetFile *first, const struct DatasetFile *other,
                     const char *what, const char *ours, const char *theirs, struct Error *err) {
    return error_set(err,
                     "'%s' and '%s' cannot form one dataset: %s is %s in the first, %s in the "
                     "second",
                     first->path, other->path, what, ours, theirs);
}

static bool compare_shapes(const struct DatasetFile *first, const struct DatasetFile *other,
                           struct Error *err) {
    static const char *const axes[] = {"samples", "channels", "frames", "height", "width"};
    char ours[32], theirs[32];
    for (int i = 1; i < 5; i++) {
        if (first->video.dims[i] == other->video.dims[i]) continue;
        snprintf(ours, sizeof ours, "%lld", (long long)first->video.dims[i]);
        snprintf(theirs, sizeof theirs, "%lld", (long long)other->video.dims[i]);
        return disagree(first, other, axes[i], ours, theirs, err);
    }
    if (first->rows.row_elems == other->rows.row_elems) return true;
    snprintf(ours, sizeof ours, "%lld", (long long)first->rows.row_elems);
    snprintf(theirs, sizeof theirs, "%lld", (long long)other->rows.row_elems);
    return disagree(first, other, "text_dim", ours, theirs, err);
}

/* Reads the negative rows of both as float and compares them. */
static bool same_negative_rows(struct DatasetFile *first, struct DatasetFile *other, bool *same,
                               struct Error *err) {
    int64_t n_rows = first->negative.n_rows, n_elems = n_rows * first->negative.row_elems;
    *same = n_rows == other->negative.n_rows;
    if (!*same) return true;
    unsigned long n_bytes = (unsigned long)n_elems * sizeof(float);
    float *ours = xmalloc(n_bytes), *theirs = xmalloc(n_bytes);
    bool good = dataset_file_read_negative(first, n_rows, ours, err) &&
                dataset_file_read_negative(other, n_rows, theirs, err);
    *same = good && memcmp(ours, theirs, n_bytes) == 0;
    free(ours);
    free(theirs);
    return good;
}

/* Whether `other` can follow `first` in one dataset. */
static bool compare_files(struct DatasetFile *first, struct DatasetFile *other, struct Error *err) {
    static const char *const kinds[] = {"latents", "pixels"};
    bool same;
    if (first->kind != other->kind)
        return disagree(first, other, "kind", kinds[first->kind], kinds[other->kind], err);
    if (!compare_shapes(first, other, err)) return false;
    if (first->video.element != other->video.element)
        return disagree(first, other, "the videos' type", h5_element_name(first->video.element),
                        h5_element_name(other->video.element), err);
    if (first->rows.element != other->rows.element)
        return disagree(first, other, "the text's type", h5_element_name(first->rows.element),
                        h5_element_name(other->rows.element), err);
    if (strcmp(first->video_encoder, other->video_encoder))
        return disagree(first, other, "video_encoder", first->video_encoder, other->video_encoder,
                        err);
    if (strcmp(first->text_encoder, other->text_encoder))
        return disagree(first, other, "text_encoder", first->text_encoder, other->text_encoder,
                        err);
    if (!same_negative_rows(first, other, &same, err)) return false;
    if (!same || strcmp(first->negative_prompt, other->negative_prompt))
        return error_set(err,
                         "'%s' and '%s' cannot form one dataset: their negative prompts or the "
                         "embeddings of them differ",
                         first->path, other->path);
    return true;
}

static void describe(struct Dataset *dataset) {
    const struct DatasetFile *first = &dataset->files[0];
    struct DatasetInfo *info = &dataset->info;
    *info = (struct DatasetInfo){
        .kind = first->kind,
        .channels = first->video.dims[1],
        .frames = first->video.dims[2],
        .height = first->video.dims[3],
        .width = first->video.dims[4],
        .video_element = first->video.element,
        .text_element = first->rows.element,
        .text_dim = first->rows.row_elems,
        .normalised = true,
        .has_checksums = true,
        .fps = first->fps,
        .video_encoder = first->video_encoder,
        .text_encoder = first->text_encoder,
        .negative_prompt = first->negative_prompt,
    };
    for (int i = 0; i < dataset->n_files; i++) {
        const struct DatasetFile *file = &dataset->files[i];
        info->n_samples += file->n_samples;
        info->normalised &= file->normalised;
        info->has_checksums &= file->checksums != NULL;
        if (file->max_text_rows > info->max_text_rows) info->max_text_rows = file->max_text_rows;
    }
}

struct Dataset *dataset_open(char *const *paths, int n_paths, struct Error *err) {
    TMD_CHECK(n_paths >= 1, "a dataset of %d files", n_paths);
    struct Dataset *dataset =
        xcalloc(sizeof *dataset + (unsigned long)n_paths * sizeof *dataset->files);
    pthread_mutex_init(&dataset->lock, NULL);
    for (int i = 0; i < n_paths; i++) {
        struct DatasetFile *file = &dataset->files[i];
        bool good = dataset_file_open(file, paths[i], err);
        if (good) dataset->n_files++;
        if (!good || (i > 0 && !compare_files(&dataset->files[0], file, err))) {
            dataset_close(dataset);
            return NULL;
        }
    }
    describe(dataset);
    return dataset;
}

void dataset_close(struct Dataset *dataset) {
    if (!dataset) return;
    for (int i = 0; i < dataset->n_files; i++) dataset_file_close(&dataset->files[i]);
    pthread_mutex_destroy(&dataset->lock);
    free(dataset);
}

const struct DatasetInfo *dataset_info(const struct Dataset *dataset) {
    return &dataset->info;
}

int64_t dataset_video_elems(const struct Dataset *dataset) {
    return dataset->files[0].video.row_elems;
}

/* The file that holds a sample; *sample becomes its number there. */
static struct DatasetFile *locate(struct Dataset *dataset, int64_t *sample) {
    TMD_CHECK(*sample >= 0 && *sample < dataset->info.n_samples, "sample %lld of %lld",
              (long long)*sample, (long long)dataset->info.n_samples);
    struct DatasetFile *file = dataset->files;
    for (; *sample >= file->n_samples; file++) *sample -= file->n_samples;
    return file;
}

bool dataset_read_sample(struct Dataset *dataset, int64_t sample, int64_t text_len, float *video,
                         float *text, struct Error *err) {
    struct DatasetFile *file = locate(dataset, &sample);
    pthread_mutex_lock(&dataset->lock);
    bool good = dataset_file_read_video(file, sample, video, err) &&
                dataset_file_read_text(file, sample, text_len, text, err);
    pthread_mutex_unlock(&dataset->lock);
    return good;
}

bool dataset_read_text(struct Dataset *dataset, int64_t sample, int64_t text_len, float *text,
                       struct Error *err) {
    struct DatasetFile *file = locate(dataset, &sample);
    pthread_mutex_lock(&dataset->lock);
    bool good = dataset_file_read_text(file, sample, text_len, text, err);
    pthread_mutex_unlock(&dataset->lock);
    return good;
}

bool dataset_read_negative(struct Dataset *dataset, int64_t text_len, float *text,
                           struct Error *err) {
    pthread_mutex_lock(&dataset->lock);
    bool good = dataset_file_read_negative(&dataset->files[0], text_len, text, err);
    pthread_mutex_unlock(&dataset->lock);
    return good;
}

bool dataset_read_prompt(struct Dataset *dataset, int64_t sample, char **prompt,
                         struct Error *err) {
    struct DatasetFile *file = locate(dataset, &sample);
    pthread_mutex_lock(&dataset->lock);
    bool good = dataset_file_read_prompt(file, sample, prompt, err);
    pthread_mutex_unlock(&dataset->lock);
    return good;
}

bool dataset_find_prompt(struct Dataset *dataset, const char *prompt, int64_t *sample,
                         struct Error *err) {
    bool found = false;
    for (*sample = 0; *sample < dataset->info.n_samples; ++*sample) {
        char *candidate;
        if (!dataset_read_prompt(dataset, *sample, &candidate, err)) return false;
        found = strcmp(candidate, prompt) == 0;
        free(candidate);
        if (found) return true;
    }
    return error_set(err, "no sample of the dataset (first file '%s') has the prompt '%s'",
                     dataset->files[0].path, prompt);
}
