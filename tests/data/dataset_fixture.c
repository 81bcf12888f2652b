/* Contents are drawn from a sample's tag: a test that knows the tag knows the sample. */
#include "dataset_fixture.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "check.h"
#include "data/h5_element.h"
#include "data/h5_file.h"
#include "philox.h"
#include "scratch.h"

static float draw(int64_t tag, int i, uint32_t stream) {
    return (float)(philox(99, (uint32_t)tag, (uint32_t)i, stream, 0).word[0] % 128) / 64.0f - 1.0f;
}

struct DatasetSpec fixture_spec(void) {
    static const float negative[2 * FIXTURE_TEXT_DIM] = {0.5f, -0.25f, [8] = 1.0f};
    return (struct DatasetSpec){
        .kind = DATASET_PIXELS,
        .channels = FIXTURE_CHANNELS,
        .frames = FIXTURE_FRAMES,
        .height = FIXTURE_HEIGHT,
        .width = FIXTURE_WIDTH,
        .video_element = DTYPE_F32,
        .text_element = DTYPE_F32,
        .text_dim = FIXTURE_TEXT_DIM,
        .fps = 16,
        .text_encoder = "fixture",
        .negative_prompt = "nothing",
        .negative_rows = negative,
        .n_negative_rows = 2,
        .zstd_level = 3,
    };
}

void fixture_video(float video[FIXTURE_VIDEO], int64_t tag) {
    for (int i = 0; i < FIXTURE_VIDEO; i++) video[i] = draw(tag, i, 1);
}

int64_t fixture_text(float text[FIXTURE_TEXT], int64_t tag) {
    int64_t n_rows = tag % (FIXTURE_MAX_ROWS + 1);
    memset(text, 0, FIXTURE_TEXT * sizeof *text);
    for (int i = 0; i < n_rows * FIXTURE_TEXT_DIM; i++) text[i] = draw(tag, i, 2);
    return n_rows;
}

void fixture_prompt(char prompt[32], int64_t tag) {
    snprintf(prompt, 32, "sample %lld", (long long)tag);
}

bool fixture_write(const char *path, const struct DatasetSpec *spec, int64_t first_tag, int64_t n,
                   struct Error *err) {
    float video[FIXTURE_VIDEO], text[FIXTURE_TEXT];
    char prompt[32];
    struct DatasetWriter *writer = dataset_writer_open(path, spec, err);
    if (!writer) return false;
    for (int64_t tag = first_tag; tag < first_tag + n; tag++) {
        fixture_video(video, tag);
        fixture_prompt(prompt, tag);
        int64_t n_rows = fixture_text(text, tag);
        if (!dataset_writer_append(writer, prompt, video, text, n_rows, err)) {
            dataset_writer_discard(writer);
            return false;
        }
    }
    return dataset_writer_finish(writer, err);
}

struct Dataset *fixture_open(char *name, struct Error *err) {
    return dataset_open(&name, 1, err);
}

bool fixture_reads(char *name, struct Error *err) {
    struct Dataset *dataset = fixture_open(name, err);
    if (!dataset) return false;
    const struct DatasetInfo *info = dataset_info(dataset);
    unsigned long text_elems = (unsigned long)(info->max_text_rows * info->text_dim) + 1;
    float *video = xmalloc((unsigned long)dataset_video_elems(dataset) * sizeof *video);
    float *text = xmalloc(text_elems * sizeof *text);
    bool good = dataset_read_negative(dataset, info->max_text_rows, text, err);
    for (int64_t i = 0; i < info->n_samples && good; i++) {
        char *prompt = NULL;
        good = dataset_read_sample(dataset, i, info->max_text_rows, video, text, err) &&
               dataset_read_prompt(dataset, i, &prompt, err);
        free(prompt);
    }
    free(video);
    free(text);
    dataset_close(dataset);
    return good;
}

void fixture_check_sample(struct Dataset *dataset, int64_t sample, int64_t tag, float tolerance) {
    struct Error err;
    float video[FIXTURE_VIDEO], text[FIXTURE_TEXT + FIXTURE_TEXT_DIM];
    float want_video[FIXTURE_VIDEO], want_text[FIXTURE_TEXT];
    char want_prompt[32], *prompt;
    fixture_video(want_video, tag);
    fixture_text(want_text, tag);
    fixture_prompt(want_prompt, tag);
    for (int i = 0; i < FIXTURE_TEXT + FIXTURE_TEXT_DIM; i++) text[i] = NAN;
    check(dataset_read_sample(dataset, sample, FIXTURE_MAX_ROWS, video, text, &err));
    for (int i = 0; i < FIXTURE_VIDEO; i++)
        assert_true(fabsf(video[i] - want_video[i]) <= tolerance);
    assert_memory_equal(text, want_text, sizeof want_text);
    assert_true(isnan(text[FIXTURE_TEXT])); /* no further than text_len rows */
    check(dataset_read_prompt(dataset, sample, &prompt, &err));
    assert_string_equal(prompt, want_prompt);
    free(prompt);
}

int fixture_set_up(void **state, char **first, char **second) {
    scratch_group_set_up(state);
    *first = scratch_file("first.h5");
    *second = scratch_file("second.h5");
    h5_quiet();
    return 0;
}
