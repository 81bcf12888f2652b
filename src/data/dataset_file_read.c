/* Reading the samples of one dataset file. */
#include <stdlib.h>
#include <string.h>

#include "data/dataset_file.h"
#include "data/crc32.h"
#include "data/dataset_values.h"
#include "data/h5_attr.h"
#include "data/h5_file.h"

/* Completes an error of a callee with file and sample. */
static bool sample_error(const struct DatasetFile *file, int64_t sample, struct Error *err) {
    return error_prefix(err, "'%s', sample %lld", file->path, (long long)sample);
}

static bool check_sum(const struct DatasetFile *file, int64_t sample, int column, const void *bytes,
                      int64_t n_bytes, struct Error *err) {
    static const char *const names[] = {"video", "text", "prompt"};
    if (!file->checksums) return true;
    uint32_t expected = file->checksums[sample][column];
    uint32_t got = crc32_after(0, bytes, n_bytes);
    return got == expected ||
           error_set(err, "'%s', sample %lld: the checksum of its %s should be %08x, is %08x",
                     file->path, (long long)sample, names[column], expected, got);
}

bool dataset_file_read_video(struct DatasetFile *file, int64_t sample, float *video,
                             struct Error *err) {
    int64_t n_elems = file->video.row_elems, n_channels = file->video.dims[1];
    if (!h5_array_read(&file->video, sample, 1, file->stored, err))
        return sample_error(file, sample, err);
    if (!check_sum(file, sample, CHECKSUM_VIDEO, file->stored, file->video.row_bytes, err))
        return false;
    values_to_f32(video, file->stored, file->video.element, n_elems);
    int64_t bad = values_find_nonfinite(video, n_elems);
    if (bad >= 0)
        return error_set(err, "'%s', sample %lld: value %lld of its video is %g", file->path,
                         (long long)sample, (long long)bad, (double)video[bad]);
    if (file->mean)
        values_normalise(video, n_channels, n_elems / n_channels, file->mean, file->std);
    return true;
}

/* Rows that lie in file->stored, as text [text_len, text_dim]. */
static bool unpack_text(const struct DatasetFile *file, int64_t n_rows, int64_t text_len,
                        float *text, struct Error *err) {
    int64_t text_dim = file->rows.row_elems;
    values_to_f32(text, file->stored, file->rows.element, n_rows * text_dim);
    memset(text + n_rows * text_dim, 0, (size_t)((text_len - n_rows) * text_dim) * sizeof *text);
    int64_t bad = values_find_nonfinite(text, n_rows * text_dim);
    return bad < 0 || error_set(err, "text row %lld, value %lld is %g", (long long)(bad / text_dim),
                                (long long)(bad % text_dim), (double)text[bad]);
}

static bool check_text_len(int64_t n_rows, int64_t text_len, struct Error *err) {
    return n_rows <= text_len ||
           error_set(err, "the prompt has %lld text rows, more than text_len %lld",
                     (long long)n_rows, (long long)text_len);
}

bool dataset_file_read_text(struct DatasetFile *file, int64_t sample, int64_t text_len, float *text,
                            struct Error *err) {
    int64_t begin = file->offsets[sample], n_rows = file->offsets[sample + 1] - begin;
    if (!check_text_len(n_rows, text_len, err) ||
        !h5_array_read(&file->rows, begin, n_rows, file->stored, err))
        return sample_error(file, sample, err);
    if (!check_sum(file, sample, CHECKSUM_TEXT, file->stored, n_rows * file->rows.row_bytes, err))
        return false;
    return unpack_text(file, n_rows, text_len, text, err) || sample_error(file, sample, err);
}

static bool check_negative_sum(struct DatasetFile *file, struct Error *err) {
    int64_t expected;
    hid_t group;
    if (!h5_open_object(file->file, FORMAT_NEGATIVE, H5I_GROUP, &group, err)) return false;
    uint32_t got =
        crc32_after(0, file->stored, file->negative.n_rows * file->negative.row_bytes);
    got = crc32_after(got, file->negative_prompt, (int64_t)strlen(file->negative_prompt));
    bool good = true;
    if (h5_attr_exists(group, "checksum"))
        good = h5_attr_read_i64(group, "checksum", &expected, err) &&
               (got == expected || error_set(err,
                                             "the checksum should be %08llx, is "
                                             "%08x",
                                             (unsigned long long)expected, got));
    H5Oclose(group);
    return good;
}

bool dataset_file_read_negative(struct DatasetFile *file, int64_t text_len, float *text,
                                struct Error *err) {
    int64_t n_rows = file->negative.n_rows;
    return (check_text_len(n_rows, text_len, err) &&
            h5_array_read(&file->negative, 0, n_rows, file->stored, err) &&
            check_negative_sum(file, err) && unpack_text(file, n_rows, text_len, text, err)) ||
           error_prefix(err, "'%s', negative prompt", file->path);
}

bool dataset_file_read_prompt(struct DatasetFile *file, int64_t sample, char **prompt,
                              struct Error *err) {
    if (!h5_text_read(&file->prompts, sample, DATASET_MAX_PROMPT_BYTES, prompt, err))
        return sample_error(file, sample, err);
    if (check_sum(file, sample, CHECKSUM_PROMPT, *prompt, (int64_t)strlen(*prompt), err))
        return true;
    free(*prompt);
    *prompt = NULL;
    return false;
}
