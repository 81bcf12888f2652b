/* No allocation inside a step: every kind of step, from drawing a batch to the optimizer's update,
 * runs twice to prepare what it prepares once, and then again with every malloc of the process
 * counted.
 *
 * This program's own malloc family stands before the C library's for all of the process, shared
 * libraries included; it hands on to glibc's and books who called.  (Under a sanitizer, which has a
 * malloc of its own, the test is not built.)  Calls from our code must be none.  Two
 * libraries may: OpenMP's runtime, which with a single thread makes a team anew for every parallel loop, and
 * oneDNN, which is asked for convolutions only; how many is printed. */
#define _GNU_SOURCE /* dladdr */
#include <dlfcn.h>
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "philox.h"
#include "train/optimizer.h"
#include "train/trainer.h"

/* ---- counting */

extern void *__libc_malloc(size_t n_bytes);
extern void *__libc_calloc(size_t n, size_t n_bytes);
extern void *__libc_realloc(void *old, size_t n_bytes);
extern void *__libc_memalign(size_t alignment, size_t n_bytes);

enum { MAX_CALLERS = 4096 };

/* Callers since counting began; threads may be many. */
static struct {
    bool counting;
    int n;
    const void *callers[MAX_CALLERS];
} counter;

static void count(const void *caller) {
    if (!__atomic_load_n(&counter.counting, __ATOMIC_RELAXED)) return;
    int i = __atomic_fetch_add(&counter.n, 1, __ATOMIC_RELAXED);
    if (i < MAX_CALLERS) counter.callers[i] = caller;
}

#define NOT_INLINED __attribute__((noinline)) /* so that the caller is the return address */

NOT_INLINED void *malloc(size_t n_bytes) {
    count(__builtin_return_address(0));
    return __libc_malloc(n_bytes);
}
NOT_INLINED void *calloc(size_t n, size_t n_bytes) {
    count(__builtin_return_address(0));
    return __libc_calloc(n, n_bytes);
}
NOT_INLINED void *realloc(void *old, size_t n_bytes) {
    count(__builtin_return_address(0));
    return __libc_realloc(old, n_bytes);
}
NOT_INLINED void *memalign(size_t alignment, size_t n_bytes) {
    count(__builtin_return_address(0));
    return __libc_memalign(alignment, n_bytes);
}
NOT_INLINED void *aligned_alloc(size_t alignment, size_t n_bytes) {
    count(__builtin_return_address(0));
    return __libc_memalign(alignment, n_bytes);
}
NOT_INLINED int posix_memalign(void **memory, size_t alignment, size_t n_bytes) {
    count(__builtin_return_address(0));
    *memory = __libc_memalign(alignment, n_bytes);
    return *memory ? 0 : 12; /* ENOMEM */
}

static void counting_begin(void) {
    counter.n = 0;
    __atomic_store_n(&counter.counting, true, __ATOMIC_SEQ_CST);
}

static int counting_end(void) {
    __atomic_store_n(&counter.counting, false, __ATOMIC_SEQ_CST);
    return counter.n;
}

struct Callers {
    int ours, openmp, others; /* ours: this program, of which our libraries are a part */
};

static struct Callers counted_callers(void) {
    Dl_info program, caller;
    struct Callers n = {0};
    assert_true(counter.n <= MAX_CALLERS);
    assert_int_not_equal(dladdr((const void *)counting_begin, &program), 0);
    for (int i = 0; i < counter.n; i++) {
        if (!dladdr(counter.callers[i], &caller) || caller.dli_fbase == program.dli_fbase)
            n.ours++;
        else if (strstr(caller.dli_fname, "libgomp"))
            n.openmp++;
        else
            n.others++;
    }
    return n;
}

/* The counter sees what it should: without this, a test of nothing would pass. */
static void test_counter(void **state) {
    (void)state;
    /* through pointers: the compiler may leave out a malloc that nobody uses */
    void *(*volatile allocate)(size_t) = malloc;
    void *(*volatile allocate_aligned)(size_t, size_t) = aligned_alloc;
    counting_begin();
    void *mine = allocate(10), *aligned = allocate_aligned(64, 128);
    char *from_libc = strdup("text");
    assert_int_equal(counting_end(), 3);
    assert_int_equal(counted_callers().ours, 2);
    assert_int_equal(counted_callers().others, 1);
    free(mine);
    free(aligned);
    free(from_libc);
}

/* ---- a run without files */

struct Run {
    struct Config config;
    struct Backend *be;
    struct Comm *alone;
    struct Learner learner;
    float *host_video, *host_text;
    int64_t samples[2];
};

enum { BATCH = 2 };
static const struct VideoShape video = {.frames = 4, .height = 16, .width = 16};

static float *random_floats(int64_t n) {
    float *x = xmalloc((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)philox_uniform(philox(1, (uint32_t)i, 0, 0, 0).word[0]);
    return x;
}

static void run_init(struct Run *r, const char *const *overrides, int n_overrides) {
    static const char *const sizes[] = {"model.dim=96",
                                        "model.ffn_dim=384",
                                        "model.num_heads=4",
                                        "model.num_layers=3",
                                        "model.freq_dim=32",
                                        "model.text_dim=16",
                                        "model.text_len=8",
                                        "model.in_dim=3",
                                        "model.out_dim=3",
                                        "student.head_blocks=1",
                                        "model.patch_size=[1, 4, 4]",
                                        "discriminator.features=[1, 2]",
                                        "discriminator.channels=[8, 16, 16]",
                                        "ema.decay=0.9",
                                        "optimizer.grad_clip=1",
                                        "train.micro_batch=2",
                                        "train.global_batch=2",
                                        "init.teacher=unread",
                                        "kd.skip_layers=[1]"};
    struct Error err;
    *r = (struct Run){.be = backend_cpu_create(), .alone = comm_self_create()};
    config_init(&r->config);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (!config_override(&r->config, sizes[i], &err)) fail_msg("%s", err.text);
    for (int i = 0; i < n_overrides; i++)
        if (!config_override(&r->config, overrides[i], &err)) fail_msg("%s", err.text);
    if (!config_check(&r->config, &err)) fail_msg("%s", err.text);
    struct MemoryPlan plan = memory_plan_make(&r->config, video, BATCH, r->be->act_dtype);
    r->host_video = random_floats(BATCH * video_elems(video, r->config.model.in_dim));
    r->host_text = random_floats(BATCH * r->config.model.text_len * r->config.model.text_dim);
    learner_init(&r->learner, &r->config, r->be, r->alone, video, BATCH, r->host_text, plan.step);
    struct Networks *nets = &r->learner.nets;
    for (int role = 0; role < ROLE_COUNT; role++) {
        if (!nets->plan.present[role]) continue;
        float *host = random_floats(networks_table(nets, (enum Role)role)->n_elems);
        params_initialise(networks_table(nets, (enum Role)role), 1, host);
        weights_upload(&nets->weights[role], host);
        free(host);
    }
}

static void run_free(struct Run *r) {
    learner_free(&r->learner);
    r->alone->destroy(r->alone);
    r->be->destroy(r->be);
    free(r->host_video);
    free(r->host_text);
    config_free(&r->config);
}

/* What the trainer does of an iteration, loading and reporting aside. */
static void iterate(struct Run *r, enum StepKind kind, int64_t iteration) {
    struct StepInputs in;
    struct StepResult result;
    struct StepScalar scalars[STEP_MAX_SCALARS];
    struct Learner *l = &r->learner;
    struct LearnerPass pass = {.iteration = iteration,
                               .batch = BATCH,
                               .last = true,
                               .host_video = r->host_video,
                               .host_text = r->host_text,
                               .host_samples = r->samples};
    learner_begin(l, kind);
    int64_t mark = arena_mark(&l->arena);
    struct StepContext ctx = learner_pass(l, kind, &pass, &in, &result);
    step_scalars(&ctx, &result, scalars);
    arena_release(&l->arena, mark);
    learner_sum(l, kind);
    for (int role = 0; role < ROLE_COUNT; role++) {
        if (!learner_trains(l, kind, (enum Role)role)) continue;
        double norm = learner_gradient_norm(l, (enum Role)role);
        assert_true(norm > 0.0);
        learner_update(l, (enum Role)role, iteration, iteration + 1, norm);
    }
}

static void check_kind(struct Run *r, enum StepKind kind, bool convolutions) {
    for (int64_t i = 0; i < 2; i++) iterate(r, kind, i);
    counting_begin();
    iterate(r, kind, 2);
    counting_end();
    struct Callers n = counted_callers();
    printf("%s: %d allocations of ours, %d of OpenMP's, %d of other libraries\n", step_kind_name(kind),
           n.ours, n.openmp, n.others);
    assert_int_equal(n.ours, 0);
    if (!convolutions) assert_int_equal(n.others, 0);
}

static void check_stage(const char *stage, enum StepKind first, enum StepKind second) {
    const char *overrides[] = {stage, "train.recompute=false"};
    for (int recompute = 0; recompute < 2; recompute++) {
        struct Run r;
        if (recompute) overrides[1] = "train.recompute=true";
        run_init(&r, overrides, 2);
        bool convolutions = first == STEP_STUDENT;
        check_kind(&r, first, convolutions);
        if (second != first) check_kind(&r, second, convolutions);
        run_free(&r);
    }
}

static void test_teacher(void **state) {
    (void)state;
    check_stage("train.stage=teacher", STEP_TEACHER, STEP_TEACHER);
}

static void test_kd(void **state) {
    (void)state;
    check_stage("train.stage=kd", STEP_KD, STEP_KD);
}

static void test_stage1(void **state) {
    (void)state;
    check_stage("train.stage=stage1", STEP_STAGE1, STEP_STAGE1);
}

static void test_stage2(void **state) {
    (void)state;
    check_stage("train.stage=stage2", STEP_STUDENT, STEP_CRITIC);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counter), cmocka_unit_test(test_teacher), cmocka_unit_test(test_kd),
        cmocka_unit_test(test_stage1),  cmocka_unit_test(test_stage2),
    };
    return cmocka_run_group_tests_name("no_alloc", tests, NULL, NULL);
}
