/* Opening one dataset file: attributes, shapes, offsets (dataset_file_read.c reads samples). */
#include "data/dataset_file.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/dataset_values.h"
#include "data/h5_attr.h"
#include "data/h5_file.h"

enum { MAX_NAME_BYTES = 1024 };

static bool expect_text(struct DatasetFile *file, const char *name, const char *expected,
                        struct Error *err) {
    char *text = NULL;
    if (!h5_attr_read_text(file->file, name, MAX_NAME_BYTES, &text, err)) return false;
    bool same = strcmp(text, expected) == 0;
    if (!same)
        error_set(err, "'%s': expected the attribute %s = '%s', got '%s'", file->path, name,
                  expected, text);
    free(text);
    return same;
}

static bool read_identity(struct DatasetFile *file, struct Error *err) {
    int64_t version;
    if (!expect_text(file, "format", FORMAT_NAME, err) ||
        !h5_attr_read_i64(file->file, "format_version", &version, err))
        return false;
    if (version != FORMAT_VERSION)
        return error_set(err, "'%s': expected format_version %d, got %lld", file->path,
                         FORMAT_VERSION, (long long)version);
    return expect_text(file, "axis_order", FORMAT_AXIS_ORDER, err);
}

static bool read_kind(struct DatasetFile *file, struct Error *err) {
    char *kind = NULL;
    int64_t normalised = 0;
    if (!h5_attr_read_text(file->file, "kind", MAX_NAME_BYTES, &kind, err)) return false;
    bool latents = !strcmp(kind, FORMAT_KIND_LATENTS), pixels = !strcmp(kind, FORMAT_KIND_PIXELS);
    bool good = latents || pixels;
    if (!good)
        error_set(err, "'%s': expected the attribute kind = '%s' or '%s', got '%s'", file->path,
                  FORMAT_KIND_LATENTS, FORMAT_KIND_PIXELS, kind);
    free(kind);
    file->kind = latents ? DATASET_LATENTS : DATASET_PIXELS;
    if (good && latents) good = h5_attr_read_i64(file->file, "normalised", &normalised, err);
    file->normalised = normalised != 0;
    return good;
}

static bool read_optional_text(struct DatasetFile *file, const char *name, char **text,
                               struct Error *err) {
    if (h5_attr_exists(file->file, name))
        return h5_attr_read_text(file->file, name, MAX_NAME_BYTES, text, err);
    *text = xstrdup("");
    return true;
}

static bool read_optional_attributes(struct DatasetFile *file, struct Error *err) {
    if (h5_attr_exists(file->file, "fps") &&
        !h5_attr_read_double(file->file, "fps", &file->fps, err))
        return false;
    if (!isfinite(file->fps) || file->fps < 0)
        return error_set(err, "'%s': the attribute fps is %g", file->path, file->fps);
    return read_optional_text(file, "video_encoder", &file->video_encoder, err) &&
           read_optional_text(file, "text_encoder", &file->text_encoder, err);
}

static bool open_video(struct DatasetFile *file, struct Error *err) {
    bool pixels = file->kind == DATASET_PIXELS;
    const char *name = pixels ? FORMAT_KIND_PIXELS : FORMAT_KIND_LATENTS;
    const struct H5Array *video = &file->video;
    if (!h5_array_open(file->file, name, &file->video, err)) return false;
    if (video->rank != 5 || video->n_rows < 1)
        return error_set(err, "'%s': expected '%s' to be [N, C, F, H, W] with N >= 1", file->path,
                         name);
    if (pixels ? video->dims[1] != 3 : video->dims[1] > DATASET_MAX_CHANNELS)
        return error_set(err, "'%s': '%s' cannot have %lld channels", file->path, name,
                         (long long)video->dims[1]);
    if (!values_video_element(video->element, pixels))
        return error_set(err, "'%s': '%s' cannot be of type %s", file->path, name,
                         h5_element_name(video->element));
    if (video->row_bytes > H5_MAX_CHUNK_BYTES)
        return error_set(err, "'%s': a sample of '%s' has %lld bytes, more than %lld", file->path,
                         name, (long long)video->row_bytes, (long long)H5_MAX_CHUNK_BYTES);
    file->n_samples = video->n_rows;
    return true;
}

/* One of the two statistics, [C]. */
static bool read_statistic(struct DatasetFile *file, const char *name, double *values,
                           struct Error *err) {
    int n_channels = (int)file->video.dims[1], n;
    if (!h5_attr_read_doubles(file->file, name, values, n_channels, &n, err)) return false;
    bool good = n == n_channels;
    for (int i = 0; i < n && good; i++) good = isfinite(values[i]);
    return good || error_set(err, "'%s': expected the attribute %s to be %d finite numbers",
                             file->path, name, n_channels);
}

static bool read_normalisation(struct DatasetFile *file, struct Error *err) {
    if (file->kind == DATASET_PIXELS || file->normalised) return true;
    int64_t n_channels = file->video.dims[1];
    file->mean = xcalloc((unsigned long)n_channels * sizeof *file->mean);
    file->std = xcalloc((unsigned long)n_channels * sizeof *file->std);
    if (h5_attr_exists(file->file, "latent_mean") || h5_attr_exists(file->file, "latent_std")) {
        if (!read_statistic(file, "latent_mean", file->mean, err) ||
            !read_statistic(file, "latent_std", file->std, err))
            return false;
    } else if (n_channels == WAN_LATENT_CHANNELS) {
        memcpy(file->mean, wan_latent_mean, sizeof wan_latent_mean);
        memcpy(file->std, wan_latent_std, sizeof wan_latent_std);
    } else {
        return error_set(err,
                         "'%s': latents are not normalised and have %lld channels: expected "
                         "the attributes latent_mean and latent_std",
                         file->path, (long long)n_channels);
    }
    for (int64_t c = 0; c < n_channels; c++)
        if (file->std[c] <= 0)
            return error_set(err, "'%s': latent_std[%lld] is %g, not positive", file->path,
                             (long long)c, file->std[c]);
    return true;
}

static bool check_rows_array(const struct DatasetFile *file, const struct H5Array *rows,
                             const char *name, struct Error *err) {
    if (rows->rank != 2 || rows->row_elems > DATASET_MAX_TEXT_DIM ||
        !values_text_element(rows->element))
        return error_set(err,
                         "'%s': expected '%s' to be [rows, text_dim], text_dim at most %d, of "
                         "type f32, f16 or bf16",
                         file->path, name, DATASET_MAX_TEXT_DIM);
    return true;
}

/* Offsets must cover the rows without gaps, each sample's at most DATASET_MAX_TEXT_ROWS. */
static bool check_offsets(struct DatasetFile *file, struct Error *err) {
    for (int64_t i = 0; i < file->n_samples; i++) {
        int64_t begin = file->offsets[i], end = file->offsets[i + 1];
        bool inside = begin >= 0 && end >= begin && end <= file->rows.n_rows;
        if (!inside || end - begin > DATASET_MAX_TEXT_ROWS || (i == 0 && begin != 0))
            return error_set(err,
                             "'%s', sample %lld: text offsets %lld to %lld are wrong (there "
                             "are %lld rows, a sample has at most %d)",
                             file->path, (long long)i, (long long)begin, (long long)end,
                             (long long)file->rows.n_rows, DATASET_MAX_TEXT_ROWS);
        if (end - begin > file->max_text_rows) file->max_text_rows = end - begin;
    }
    return file->offsets[file->n_samples] == file->rows.n_rows ||
           error_set(err, "'%s': the text offsets end at %lld, there are %lld rows", file->path,
                     (long long)file->offsets[file->n_samples], (long long)file->rows.n_rows);
}

/* Reads a whole array of the shape dims [rank] and the given element into fresh memory. */
static void *read_whole(struct DatasetFile *file, const char *name, int element, int rank,
                        const int64_t *dims, struct Error *err) {
    struct H5Array array = {0};
    void *values = NULL;
    if (!h5_array_open(file->file, name, &array, err)) return NULL;
    bool fits = array.element == element && array.rank == rank;
    for (int i = 0; i < rank && fits; i++) fits = array.dims[i] == dims[i];
    if (!fits) {
        error_set(err, "'%s': expected '%s' to have %lld rows of %lld elements of type %s",
                  file->path, name, (long long)dims[0], (long long)(rank > 1 ? dims[1] : 1),
                  h5_element_name(element));
    } else {
        values = xmalloc((unsigned long)(array.n_rows * array.row_bytes));
        if (!h5_array_read(&array, 0, array.n_rows, values, err)) {
            free(values);
            values = NULL;
        }
    }
    h5_array_close(&array);
    return values;
}

static bool open_text(struct DatasetFile *file, struct Error *err) {
    const char *rows_name = FORMAT_TEXT "/" FORMAT_ROWS;
    int64_t offset_dims[1] = {file->n_samples + 1};
    if (!h5_array_open(file->file, rows_name, &file->rows, err) ||
        !check_rows_array(file, &file->rows, rows_name, err))
        return false;
    file->offsets =
        read_whole(file, FORMAT_TEXT "/" FORMAT_OFFSETS, DTYPE_I64, 1, offset_dims, err);
    if (!file->offsets || !check_offsets(file, err) ||
        !h5_array_open(file->file, FORMAT_PROMPTS, &file->prompts, err))
        return false;
    const struct H5Array *prompts = &file->prompts;
    return (prompts->element == H5_TEXT && prompts->rank == 1 &&
            prompts->n_rows == file->n_samples) ||
           error_set(err, "'%s': expected '%s' to be %lld strings of variable length", file->path,
                     FORMAT_PROMPTS, (long long)file->n_samples);
}

static bool open_checksums(struct DatasetFile *file, struct Error *err) {
    if (!h5_exists(file->file, FORMAT_CHECKSUMS)) return true;
    int64_t dims[2] = {file->n_samples, CHECKSUM_COLUMNS};
    file->checksums = read_whole(file, FORMAT_CHECKSUMS, H5_U32, 2, dims, err);
    return file->checksums != NULL;
}

static bool open_negative(struct DatasetFile *file, struct Error *err) {
    const char *rows_name = FORMAT_NEGATIVE "/" FORMAT_ROWS;
    const struct H5Array *rows = &file->negative;
    hid_t group;
    if (!h5_open_object(file->file, FORMAT_NEGATIVE, H5I_GROUP, &group, err)) return false;
    bool good =
        h5_attr_read_text(group, "prompt", DATASET_MAX_PROMPT_BYTES, &file->negative_prompt, err);
    H5Oclose(group);
    if (!good || !h5_array_open(file->file, rows_name, &file->negative, err) ||
        !check_rows_array(file, rows, rows_name, err))
        return false;
    if (rows->row_elems != file->rows.row_elems || rows->element != file->rows.element)
        return error_set(err,
                         "'%s': expected rows of %lld elements of type %s in '%s' as in '%s', "
                         "got %lld of type %s",
                         file->path, (long long)file->rows.row_elems,
                         h5_element_name(file->rows.element), rows_name,
                         FORMAT_TEXT "/" FORMAT_ROWS, (long long)rows->row_elems,
                         h5_element_name(rows->element));
    if (rows->n_rows > DATASET_MAX_TEXT_ROWS)
        return error_set(err, "'%s': the negative prompt has %lld rows, more than %d", file->path,
                         (long long)rows->n_rows, DATASET_MAX_TEXT_ROWS);
    if (rows->n_rows > file->max_text_rows) file->max_text_rows = rows->n_rows;
    return true;
}

bool dataset_file_open(struct DatasetFile *file, const char *path, struct Error *err) {
    *file = (struct DatasetFile){.path = xstrdup(path), .file = H5I_INVALID_HID};
    if (!h5_open_read(path, &file->file, err) || !read_identity(file, err) ||
        !read_kind(file, err) || !read_optional_attributes(file, err) || !open_video(file, err) ||
        !read_normalisation(file, err) || !open_text(file, err) || !open_checksums(file, err) ||
        !open_negative(file, err)) {
        dataset_file_close(file);
        return false;
    }
    int64_t text_bytes = file->max_text_rows * file->rows.row_bytes;
    int64_t video_bytes = file->video.row_bytes;
    file->stored = xmalloc((unsigned long)(text_bytes > video_bytes ? text_bytes : video_bytes));
    return true;
}

void dataset_file_close(struct DatasetFile *file) {
    h5_array_close(&file->video);
    h5_array_close(&file->rows);
    h5_array_close(&file->prompts);
    h5_array_close(&file->negative);
    if (file->file > 0) H5Fclose(file->file);
    free(file->path);
    free(file->offsets);
    free(file->checksums);
    free(file->mean);
    free(file->std);
    free(file->video_encoder);
    free(file->text_encoder);
    free(file->negative_prompt);
    free(file->stored);
    *file = (struct DatasetFile){.file = H5I_INVALID_HID};
}
