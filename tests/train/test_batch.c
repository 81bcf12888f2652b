/* The way of samples onto the device: what a pass reads are its own samples, whether they were
 * expected or others were, and those of the next pass arrive beside them.  TMD_TEST_ACT as in
 * learner_fixture.h. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "learner_fixture.h"

enum { ITERATIONS = 4, CAPACITY = RUN_BATCH };

/* Samples that tell themselves from all others. */
struct Case {
    struct Run run;
    struct BatchBuffers *batch;
    int64_t n_video, n_text;
    float *video, *text; /* where samples_of leaves them; [CAPACITY, n_video], [CAPACITY, n_text] */
    int64_t indices[CAPACITY];
};

static void case_init(struct Case *c) {
    static const char *const overrides[] = {"train.stage=stage1"};
    run_init(&c->run, run_open_backend(), overrides, 1);
    c->batch = &c->run.learner.batch;
    c->n_video = networks_latent_elems(&c->run.learner.nets);
    c->n_text = networks_text_elems(&c->run.learner.nets);
    c->video = xmalloc((size_t)(CAPACITY * c->n_video) * sizeof *c->video);
    c->text = xmalloc((size_t)(CAPACITY * c->n_text) * sizeof *c->text);
    memset(c->indices, 0, sizeof c->indices);
}

static void case_free(struct Case *c) {
    run_free(&c->run);
    free(c->video);
    free(c->text);
}

/* Whole numbers below 256, which bfloat16 holds; pass: of the iteration. */
static float value_at(int64_t iteration, int64_t pass, int64_t i) {
    return (float)(32 * iteration + 16 * pass + i % 13);
}

static struct BatchSamples samples_of(struct Case *c, int64_t iteration, int64_t pass) {
    for (int64_t i = 0; i < CAPACITY * c->n_video; i++) c->video[i] = value_at(iteration, pass, i);
    for (int64_t i = 0; i < CAPACITY * c->n_text; i++)
        c->text[i] = value_at(iteration, pass, i + 1);
    return (struct BatchSamples){.iteration = iteration,
                                 .first = CAPACITY * pass,
                                 .n = CAPACITY,
                                 .video = c->video,
                                 .text = c->text,
                                 .indices = c->indices};
}

/* The host memory is another's at once. */
static void expect(struct Case *c, int64_t iteration, int64_t pass) {
    struct BatchSamples samples = samples_of(c, iteration, pass);
    batch_upload_start(c->batch, &samples);
    memset(c->video, 0xff, (size_t)(CAPACITY * c->n_video) * sizeof *c->video);
    memset(c->text, 0xff, (size_t)(CAPACITY * c->n_text) * sizeof *c->text);
}

static struct StepInputs fill(struct Case *c, int64_t iteration, int64_t pass, bool expected) {
    struct StepInputs in;
    struct BatchSamples samples = samples_of(c, iteration, pass);
    if (expected) memset(c->video, 0xff, sizeof *c->video); /* too late to be seen */
    batch_fill(c->batch, STEP_STAGE1, &samples, &in);
    return in;
}

static void check_inputs(const struct Case *c, const struct StepInputs *in, int64_t iteration,
                         int64_t pass) {
    const struct Backend *be = c->run.be;
    int64_t n_video = CAPACITY * c->n_video, n_text = CAPACITY * c->n_text;
    int64_t text_bytes = n_text * dtype_bytes(be->act_dtype);
    float *video = xmalloc((size_t)n_video * sizeof *video);
    float *text = xmalloc((size_t)n_text * sizeof *text);
    void *act = xmalloc((size_t)text_bytes);
    be->download(be, video, in->x, n_video * (int64_t)sizeof *video);
    be->download(be, act, in->text, text_bytes);
    dtype_to_f32(text, act, be->act_dtype, n_text);
    assert_int_equal(in->batch, CAPACITY);
    for (int64_t i = 0; i < n_video; i++) assert_true(video[i] == value_at(iteration, pass, i));
    for (int64_t i = 0; i < n_text; i++) assert_true(text[i] == value_at(iteration, pass, i + 1));
    free(video);
    free(text);
    free(act);
}

/* Two passes an iteration, each expected beside the one before it. */
static void test_expected(void **state) {
    (void)state;
    struct Case c;
    case_init(&c);
    for (int64_t k = 0; k < 2 * ITERATIONS; k++) {
        struct StepInputs in = fill(&c, k / 2, k % 2, k > 0);
        expect(&c, (k + 1) / 2, (k + 1) % 2);
        check_inputs(&c, &in, k / 2, k % 2);
    }
    case_free(&c);
}

static void test_nothing_expected(void **state) {
    (void)state;
    struct Case c;
    case_init(&c);
    for (int64_t k = 0; k < ITERATIONS; k++) {
        struct StepInputs in = fill(&c, k, 0, false);
        check_inputs(&c, &in, k, 0);
    }
    case_free(&c);
}

/* As when the present iteration is run again for a dump: what was expected comes to nothing, and is
 * uploaded when its turn comes. */
static void test_others_expected(void **state) {
    (void)state;
    struct Case c;
    case_init(&c);
    static const int64_t others[][2] = {{1, 0}, {0, 1}}; /* iteration, pass */
    for (int i = 0; i < 2; i++) {
        expect(&c, others[i][0], others[i][1]);
        struct StepInputs in = fill(&c, 0, 0, false);
        check_inputs(&c, &in, 0, 0);
        in = fill(&c, others[i][0], others[i][1], false);
        check_inputs(&c, &in, others[i][0], others[i][1]);
    }
    case_free(&c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_expected),
        cmocka_unit_test(test_nothing_expected),
        cmocka_unit_test(test_others_expected),
    };
    return cmocka_run_group_tests_name("batch", tests, NULL, NULL);
}
