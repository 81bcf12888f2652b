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

#include "learner_fixture.h"

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

/* ---- runs */

static void check_kind(struct Run *r, enum StepKind kind, bool convolutions) {
    struct StepScalar scalars[STEP_MAX_SCALARS];
    for (int64_t i = 0; i < 2; i++) run_iterate(r, kind, i, scalars);
    counting_begin();
    run_iterate(r, kind, 2, scalars);
    counting_end();
    struct Callers n = counted_callers();
    printf("%s: %d allocations of ours, %d of OpenMP's, %d of other libraries\n", step_kind_name(kind),
           n.ours, n.openmp, n.others);
    assert_int_equal(n.ours, 0);
    if (!convolutions) assert_int_equal(n.others, 0);
}

static void check_stage(const char *stage, enum StepKind first, enum StepKind second) {
    static const char *const policies[] = {"train.recompute=none", "train.recompute=full",
                                           "train.recompute=keep_attention"};
    for (int policy = 0; policy < 3; policy++) {
        const char *overrides[] = {stage, policies[policy]};
        struct Run r;
        run_init(&r, backend_cpu_create(), overrides, 2);
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
