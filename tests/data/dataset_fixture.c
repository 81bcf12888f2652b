#include "dataset_fixture.h"

#include <stdio.h>
#include <string.h>

#include "data/h5_element.h"
#include "philox.h"

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
