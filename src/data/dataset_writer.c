/* Samples are appended one by one to a file aside, which takes its real name when it is finished.
 * Offsets and checksums, which are small, are collected in memory and written at the end. */
#include "data/dataset_writer.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "data/atomic_file.h"
#include "data/crc32.h"
#include "data/dataset_format.h"
#include "data/dataset_values.h"
#include "data/h5_array.h"
#include "data/h5_attr.h"
#include "data/h5_file.h"
#include "data/utf8.h"

struct DatasetWriter {
    struct DatasetSpec spec; /* numbers only: its pointers are not used after open */
    char *path, *partial;
    hid_t file, text_group;
    struct H5Array video, rows, prompts;
    int64_t n_samples, capacity;
    int64_t *offsets;                        /* [capacity + 1] */
    uint32_t (*checksums)[CHECKSUM_COLUMNS]; /* [capacity] */
    void *stored;                            /* what is being written, in stored elements */
    int64_t stored_bytes;
};

static const char *kind_name(enum DatasetKind kind) {
    return kind == DATASET_LATENTS ? FORMAT_KIND_LATENTS : FORMAT_KIND_PIXELS;
}

static bool check_spec(const char *path, const struct DatasetSpec *spec, struct Error *err) {
    bool pixels = spec->kind == DATASET_PIXELS;
    int64_t elems = 1, limits[4] = {DATASET_MAX_CHANNELS, INT64_MAX, INT64_MAX, INT64_MAX};
    int64_t dims[4] = {spec->channels, spec->frames, spec->height, spec->width};
    for (int i = 0; i < 4; i++)
        if (dims[i] < 1 || dims[i] > limits[i] || __builtin_mul_overflow(elems, dims[i], &elems) ||
            elems > H5_MAX_CHUNK_BYTES)
            return error_set(err, "'%s': a sample cannot be %lld x %lld x %lld x %lld", path,
                             (long long)dims[0], (long long)dims[1], (long long)dims[2],
                             (long long)dims[3]);
    if (pixels && spec->channels != 3)
        return error_set(err, "'%s': pixels have 3 channels, not %lld", path,
                         (long long)spec->channels);
    if (!values_video_element(spec->video_element, pixels))
        return error_set(err, "'%s': %s cannot be stored as %s", path, kind_name(spec->kind),
                         h5_element_name(spec->video_element));
    if (!values_text_element(spec->text_element))
        return error_set(err, "'%s': text cannot be stored as %s", path,
                         h5_element_name(spec->text_element));
    if (spec->text_dim < 1 || spec->text_dim > DATASET_MAX_TEXT_DIM)
        return error_set(err, "'%s': text rows have 1 to %d numbers, not %lld", path,
                         DATASET_MAX_TEXT_DIM, (long long)spec->text_dim);
    return true;
}

static bool write_attributes(hid_t file, const struct DatasetSpec *spec, struct Error *err) {
    bool latents = spec->kind == DATASET_LATENTS;
    int n = (int)spec->channels;
    return h5_attr_write_text(file, "format", FORMAT_NAME, err) &&
           h5_attr_write_i64(file, "format_version", FORMAT_VERSION, err) &&
           h5_attr_write_text(file, "kind", kind_name(spec->kind), err) &&
           h5_attr_write_text(file, "axis_order", FORMAT_AXIS_ORDER, err) &&
           (!latents || h5_attr_write_i64(file, "normalised", spec->normalised, err)) &&
           (!spec->latent_mean ||
            (h5_attr_write_doubles(file, "latent_mean", spec->latent_mean, n, err) &&
             h5_attr_write_doubles(file, "latent_std", spec->latent_std, n, err))) &&
           (spec->fps == 0 || h5_attr_write_double(file, "fps", spec->fps, err)) &&
           (!spec->video_encoder ||
            h5_attr_write_text(file, "video_encoder", spec->video_encoder, err)) &&
           (!spec->text_encoder ||
            h5_attr_write_text(file, "text_encoder", spec->text_encoder, err));
}

/* Chunks of text rows large enough to compress, small enough that a sample's rows read quickly. */
static int64_t text_chunk_rows(const struct DatasetSpec *spec) {
    enum { CHUNK_BYTES = 256 << 10 };
    int64_t row_bytes = spec->text_dim * h5_element_bytes(spec->text_element);
    return row_bytes > CHUNK_BYTES ? 1 : CHUNK_BYTES / row_bytes;
}

static bool create_arrays(struct DatasetWriter *writer, struct Error *err) {
    enum { PROMPTS_PER_CHUNK = 256 };
    const struct DatasetSpec *spec = &writer->spec;
    int64_t video_dims[5] = {0, spec->channels, spec->frames, spec->height, spec->width};
    int64_t row_dims[2] = {0, spec->text_dim}, prompt_dims[1] = {0};
    struct H5Layout video = {.element = spec->video_element,
                             .rank = 5,
                             .dims = video_dims,
                             .chunk_rows = 1,
                             .zstd_level = spec->zstd_level};
    struct H5Layout rows = {.element = spec->text_element,
                            .rank = 2,
                            .dims = row_dims,
                            .chunk_rows = text_chunk_rows(spec),
                            .zstd_level = spec->zstd_level};
    struct H5Layout prompts = {
        .element = H5_TEXT, .rank = 1, .dims = prompt_dims, .chunk_rows = PROMPTS_PER_CHUNK};
    return h5_array_create(writer->file, kind_name(spec->kind), &video, &writer->video, err) &&
           h5_create_group(writer->file, FORMAT_TEXT, &writer->text_group, err) &&
           h5_array_create(writer->text_group, FORMAT_ROWS, &rows, &writer->rows, err) &&
           h5_array_create(writer->file, FORMAT_PROMPTS, &prompts, &writer->prompts, err);
}

static bool value_error(const struct DatasetWriter *writer, const char *what, int64_t i,
                        float value, int element, struct Error *err) {
    return error_set(err, "'%s', %s: value %lld is %g, which %s cannot hold as a finite number",
                     writer->path, what, (long long)i, (double)value, h5_element_name(element));
}

/* Turns values [n_elems] into writer->stored, which must read back as finite values. */
static bool to_stored(struct DatasetWriter *writer, const float *values, int element,
                      int64_t n_elems, const char *what, struct Error *err) {
    enum { BLOCK = 1024 };
    float back[BLOCK];
    int64_t element_bytes = h5_element_bytes(element);
    if (n_elems * element_bytes > writer->stored_bytes) {
        writer->stored_bytes = n_elems * element_bytes;
        writer->stored = xrealloc(writer->stored, (unsigned long)writer->stored_bytes);
    }
    for (int64_t at = 0; at < n_elems; at += BLOCK) {
        int64_t n = n_elems - at < BLOCK ? n_elems - at : BLOCK;
        void *stored = (char *)writer->stored + at * element_bytes;
        int64_t bad = values_find_nonfinite(values + at, n);
        if (bad < 0) {
            values_from_f32(stored, values + at, element, n);
            values_to_f32(back, stored, element, n);
            bad = values_find_nonfinite(back, n);
        }
        if (bad >= 0) return value_error(writer, what, at + bad, values[at + bad], element, err);
    }
    return true;
}

static bool check_text(const struct DatasetWriter *writer, const char *prompt, int64_t n_rows,
                       const char *what, struct Error *err) {
    if (n_rows < 0 || n_rows > DATASET_MAX_TEXT_ROWS)
        return error_set(err, "'%s', %s: a prompt has at most %d rows, not %lld", writer->path,
                         what, DATASET_MAX_TEXT_ROWS, (long long)n_rows);
    if (strlen(prompt) > DATASET_MAX_PROMPT_BYTES)
        return error_set(err, "'%s', %s: a prompt has at most %d bytes, not %zu", writer->path,
                         what, DATASET_MAX_PROMPT_BYTES, strlen(prompt));
    return utf8_valid(prompt) ||
           error_set(err, "'%s', %s: the prompt is not valid UTF-8", writer->path, what);
}

static bool write_negative(struct DatasetWriter *writer, struct Error *err) {
    const struct DatasetSpec *spec = &writer->spec;
    int64_t n_elems = spec->n_negative_rows * spec->text_dim;
    int64_t dims[2] = {spec->n_negative_rows, spec->text_dim};
    struct H5Layout layout = {.element = spec->text_element, .rank = 2, .dims = dims};
    struct H5Array rows = {0};
    hid_t group = H5I_INVALID_HID;
    const char *what = "negative prompt";
    bool good = check_text(writer, spec->negative_prompt, spec->n_negative_rows, what, err) &&
                to_stored(writer, spec->negative_rows, spec->text_element, n_elems, what, err) &&
                h5_create_group(writer->file, FORMAT_NEGATIVE, &group, err) &&
                h5_attr_write_text(group, "prompt", spec->negative_prompt, err) &&
                h5_array_create(group, FORMAT_ROWS, &layout, &rows, err) &&
                h5_array_write(&rows, 0, dims[0], writer->stored, err);
    if (good) {
        uint32_t sum = crc32_after(0, writer->stored, dims[0] * rows.row_bytes);
        sum = crc32_after(sum, spec->negative_prompt, (int64_t)strlen(spec->negative_prompt));
        good = h5_attr_write_i64(group, "checksum", sum, err);
    }
    h5_array_close(&rows);
    if (group >= 0) H5Gclose(group);
    return good;
}

struct DatasetWriter *dataset_writer_open(const char *path, const struct DatasetSpec *spec,
                                          struct Error *err) {
    if (!check_spec(path, spec, err)) return NULL;
    struct DatasetWriter *writer = xcalloc(sizeof *writer);
    writer->spec = *spec;
    writer->path = xstrdup(path);
    writer->partial = atomic_file_partial(path);
    writer->text_group = H5I_INVALID_HID;
    writer->offsets = xcalloc(sizeof *writer->offsets);
    if (h5_create(writer->partial, &writer->file, err) &&
        write_attributes(writer->file, spec, err) && create_arrays(writer, err) &&
        write_negative(writer, err))
        return writer;
    dataset_writer_discard(writer);
    return NULL;
}

static void reserve_sample(struct DatasetWriter *writer) {
    if (writer->n_samples < writer->capacity) return;
    writer->capacity = writer->capacity ? 2 * writer->capacity : 64;
    unsigned long n = (unsigned long)writer->capacity;
    writer->offsets = xrealloc(writer->offsets, (n + 1) * sizeof *writer->offsets);
    writer->checksums = xrealloc(writer->checksums, n * sizeof *writer->checksums);
}

bool dataset_writer_append(struct DatasetWriter *writer, const char *prompt, const float *video,
                           const float *text, int64_t n_rows, struct Error *err) {
    const struct DatasetSpec *spec = &writer->spec;
    char what[48];
    snprintf(what, sizeof what, "sample %lld", (long long)writer->n_samples);
    reserve_sample(writer);
    int64_t sample = writer->n_samples, n_text = n_rows * spec->text_dim;
    if (!check_text(writer, prompt, n_rows, what, err) ||
        !to_stored(writer, video, spec->video_element, writer->video.row_elems, what, err) ||
        !h5_array_append(&writer->video, 1, writer->stored, err))
        return false;
    uint32_t *sums = writer->checksums[sample];
    sums[CHECKSUM_VIDEO] = crc32_after(0, writer->stored, writer->video.row_bytes);
    if (!to_stored(writer, text, spec->text_element, n_text, what, err) ||
        !h5_array_append(&writer->rows, n_rows, writer->stored, err) ||
        !h5_text_append(&writer->prompts, prompt, err))
        return false;
    sums[CHECKSUM_TEXT] = crc32_after(0, writer->stored, n_rows * writer->rows.row_bytes);
    sums[CHECKSUM_PROMPT] = crc32_after(0, prompt, (int64_t)strlen(prompt));
    writer->offsets[sample + 1] = writer->offsets[sample] + n_rows;
    writer->n_samples++;
    return h5_check_written(writer->file, writer->partial, err);
}

/* A whole array of fixed length in one go. */
static bool write_whole(hid_t location, const char *name, int element, int rank,
                        const int64_t *dims, const void *values, struct Error *err) {
    struct H5Layout layout = {.element = element, .rank = rank, .dims = dims};
    struct H5Array array = {0};
    bool good = h5_array_create(location, name, &layout, &array, err) &&
                h5_array_write(&array, 0, dims[0], values, err);
    h5_array_close(&array);
    return good;
}

static void close_objects(struct DatasetWriter *writer) {
    h5_array_close(&writer->video);
    h5_array_close(&writer->rows);
    h5_array_close(&writer->prompts);
    if (writer->text_group >= 0) H5Gclose(writer->text_group);
}

static void free_writer(struct DatasetWriter *writer) {
    free(writer->path);
    free(writer->partial);
    free(writer->offsets);
    free(writer->checksums);
    free(writer->stored);
    free(writer);
}

bool dataset_writer_finish(struct DatasetWriter *writer, struct Error *err) {
    int64_t offset_dims[1] = {writer->n_samples + 1},
            checksum_dims[2] = {writer->n_samples, CHECKSUM_COLUMNS};
    bool good = writer->n_samples > 0 ||
                error_set(err, "'%s' would have no samples and is not written", writer->path);
    if (!good ||
        !write_whole(writer->text_group, FORMAT_OFFSETS, DTYPE_I64, 1, offset_dims, writer->offsets,
                     err) ||
        !write_whole(writer->file, FORMAT_CHECKSUMS, H5_U32, 2, checksum_dims, writer->checksums,
                     err)) {
        dataset_writer_discard(writer);
        return false;
    }
    close_objects(writer);
    good = h5_commit(writer->file, writer->partial, writer->path, err);
    free_writer(writer);
    return good;
}

void dataset_writer_discard(struct DatasetWriter *writer) {
    if (!writer) return;
    close_objects(writer);
    if (writer->file > 0) h5_discard(writer->file, writer->partial);
    free_writer(writer);
}
