/* A backend's memory, and the arena on top of it. */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "error.h"
#include "kernels/arena.h"
#include "op_check.h"

static void test_alloc_is_zeroed_and_aligned(void **state) {
    struct OpSuite *suite = *state;
    const struct Backend *be = suite->be;
    for (int64_t n_bytes = 1; n_bytes < 5000; n_bytes = 3 * n_bytes + 4) {
        unsigned char *host = malloc((size_t)n_bytes);
        memset(host, 0xff, (size_t)n_bytes);
        void *memory = be->memory_alloc(be, n_bytes);
        assert_non_null(memory);
        assert_int_equal((uintptr_t)memory % 64, 0);
        be->download(be, host, memory, n_bytes);
        for (int64_t i = 0; i < n_bytes; i++) assert_int_equal(host[i], 0);
        be->memory_free(be, memory);
        free(host);
        suite->n_comparisons++;
    }
}

/* Copies and zeroes of every byte length, between canaries. */
static void test_copy_and_zero(void **state) {
    for (int64_t n = 1; n < 140; n += 9) {
        struct OpCase c;
        op_case_begin(&c, *state, "copy and zero n %d", (int)n);
        struct OpTensor *from = op_input(&c, "from", OP_F32, 1, n);
        struct OpTensor *to = op_output(&c, "to", OP_F32, 1, n);
        struct OpTensor *cleared = op_accumulator(&c, "cleared", OP_F32, 1, n);
        int64_t n_bytes = n * (int64_t)sizeof(float);
        c.be->copy(c.be, op_f32(to), op_f32(from), n_bytes);
        c.be->zero(c.be, op_f32(cleared), n_bytes);
        op_check_exact(&c, to, from->values);
        op_check_exact(&c, cleared, op_array(&c, n));
        op_case_end(&c);
    }
}

/* A block of rows out of one matrix into another; canaries stand in the gaps between its rows. */
static void test_copy_rows(void **state) {
    static const int64_t sizes[][4] = {/* rows, columns, strides of to and from */
                                       {1, 1, 1, 1}, {5, 3, 3, 11}, {7, 4, 9, 4}, {64, 33, 40, 35}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const int64_t rows = sizes[i][0], cols = sizes[i][1], to_stride = sizes[i][2];
        const int64_t from_stride = sizes[i][3], elem = (int64_t)sizeof(float);
        struct OpCase c;
        op_case_begin(&c, *state, "copy rows %d x %d", (int)rows, (int)cols);
        struct OpTensor *from = op_strided(&c, OP_INPUT, "from", OP_F32, rows, cols, from_stride,
                                           from_stride - cols);
        struct OpTensor *to =
            op_strided(&c, OP_OVERWRITTEN, "to", OP_F32, rows, cols, to_stride, 0);
        c.be->copy_rows(c.be, op_f32(to), to_stride * elem, op_f32(from), from_stride * elem, rows,
                        cols * elem);
        op_check_exact(&c, to, from->values);
        op_case_end(&c);
    }
}

static void test_upload_and_download_parts(void **state) {
    struct OpCase c;
    op_case_begin(&c, *state, "upload and download");
    struct OpTensor *t = op_accumulator(&c, "t", OP_F32, 1, 9);
    float host[3] = {1.0f, -2.0f, 3.0f}, back[3] = {0};
    double *expected = op_array(&c, 9);
    for (int i = 0; i < 9; i++) expected[i] = i >= 4 && i < 7 ? (double)host[i - 4] : t->values[i];
    c.be->upload(c.be, op_f32(t) + 4, host, sizeof host);
    host[0] = 7.0f; /* an upload has read its source when it returns */
    c.be->download(c.be, back, op_f32(t) + 4, sizeof back);
    op_check_exact(&c, t, expected);
    for (int i = 0; i < 3; i++) assert_true((double)back[i] == expected[4 + i]);
    op_case_end(&c);
}

/* Element i of what arrives in a round: each has others. */
static float arriving(int round, int64_t i) {
    return (float)(1000 * round + i % 997);
}

/* Uploads to two places in turn, each beside an operation on the other, with nothing that waits for the
 * device in between: all that was uploaded is read once, before the next upload to its place. */
static void check_uploads_beside(struct OpSuite *suite, int64_t n) {
    enum { ROUNDS = 6 };
    const struct Backend *be = suite->be;
    int64_t n_bytes = n * (int64_t)sizeof(float);
    float *host = xmalloc((size_t)n_bytes), *places[2], *read[ROUNDS];
    for (int i = 0; i < 2; i++) places[i] = be->memory_alloc(be, n_bytes);
    for (int round = 0; round < ROUNDS; round++) read[round] = be->memory_alloc(be, n_bytes);
    be->upload_wait(be);
    for (int round = 0; round <= ROUNDS; round++) {
        if (round > 0) {
            be->upload_wait(be);
            be->copy(be, read[round - 1], places[(round - 1) % 2], n_bytes);
        }
        for (int64_t i = 0; i < n; i++) host[i] = arriving(round, i);
        be->upload_start(be, places[round % 2], host, n_bytes);
        memset(host, 0xff, (size_t)n_bytes); /* it has been read */
    }
    for (int round = 0; round < ROUNDS; round++) {
        be->download(be, host, read[round], n_bytes);
        for (int64_t i = 0; i < n; i++)
            if (host[i] != arriving(round, i))
                fail_msg("round %d: element %d is %g", round, (int)i, (double)host[i]);
        be->memory_free(be, read[round]);
        suite->n_comparisons++;
    }
    for (int i = 0; i < 2; i++) be->memory_free(be, places[i]);
    free(host);
}

/* The last is more than what a device's staging memory holds at a time. */
static void test_uploads_beside(void **state) {
    static const int64_t sizes[] = {1, 63, (9 << 18) + 5};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) check_uploads_beside(*state, sizes[i]);
}

/* ---- downloads beside the operations ---- */

/* Two arrays that are written in every round, and downloaded while others read them. */
struct Downloads {
    const struct Backend *be;
    int64_t n_elems, n_bytes;
    float *fresh, *arrays[2], *elsewhere; /* on the device */
    float *copies[2];                     /* in host memory, into which the arrays are downloaded */
};

static void write_arrays(struct Downloads *d, int round) {
    float *host = xmalloc((size_t)d->n_bytes);
    for (int a = 0; a < 2; a++) {
        for (int64_t i = 0; i < d->n_elems; i++) host[i] = arriving(2 * round + a, i);
        d->be->upload(d->be, d->fresh, host, d->n_bytes);
        d->be->copy(d->be, d->arrays[a], d->fresh, d->n_bytes);
    }
    free(host);
}

static void check_copies(const struct Downloads *d, int round) {
    for (int a = 0; a < 2; a++)
        for (int64_t i = 0; i < d->n_elems; i++)
            if (d->copies[a][i] != arriving(2 * round + a, i))
                fail_msg("round %d, array %d: element %d is %g", round, a, (int)i,
                         (double)d->copies[a][i]);
}

static void *wait_elsewhere(void *context) {
    const struct Backend *be = ((const struct Downloads *)context)->be;
    be->download_wait(be);
    return NULL;
}

/* Half of the rounds, the wait is another thread's, and behind it this one's. */
static void check_downloads_beside(struct OpSuite *suite, int64_t n, bool pinned) {
    enum { ROUNDS = 4 };
    const struct Backend *be = suite->be;
    struct Downloads d = {.be = be, .n_elems = n, .n_bytes = n * (int64_t)sizeof(float)};
    float **places[] = {&d.fresh, &d.arrays[0], &d.arrays[1], &d.elsewhere};
    for (int i = 0; i < 4; i++) *places[i] = be->memory_alloc(be, d.n_bytes);
    for (int a = 0; a < 2; a++)
        d.copies[a] = pinned ? be->pinned_alloc(be, d.n_bytes) : xmalloc((size_t)d.n_bytes);
    write_arrays(&d, 0);
    for (int round = 0; round < ROUNDS; round++) {
        for (int a = 0; a < 2; a++) be->download_start(be, d.copies[a], d.arrays[a], d.n_bytes);
        be->copy(be, d.elsewhere, d.arrays[0], d.n_bytes);
        if (round % 2) {
            pthread_t thread;
            assert_int_equal(pthread_create(&thread, NULL, wait_elsewhere, &d), 0);
            pthread_join(thread, NULL);
        }
        be->download_wait(be);
        write_arrays(&d, round + 1);
        be->finish(be);
        check_copies(&d, round);
        suite->n_comparisons++;
    }
    for (int a = 0; a < 2; a++)
        if (pinned)
            be->pinned_free(be, d.copies[a]);
        else
            free(d.copies[a]);
    for (int i = 0; i < 4; i++) be->memory_free(be, *places[i]);
}

static void test_downloads_beside(void **state) {
    static const int64_t sizes[] = {1, 63, 100003};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int pinned = 0; pinned < 2; pinned++)
            check_downloads_beside(*state, sizes[i], pinned);
}

/* Nothing has been started, or it has been freed since. */
static void test_downloads_that_are_none(void **state) {
    struct OpSuite *suite = *state;
    const struct Backend *be = suite->be;
    float *array = be->memory_alloc(be, 64), *copy = be->pinned_alloc(be, 64);
    be->download_wait(be);
    copy[15] = 1.0f;
    be->download_start(be, copy, array, 64);
    be->memory_free(be, array); /* waits for it */
    assert_true(copy[15] == 0.0f);
    be->download_wait(be);
    be->pinned_free(be, copy);
    suite->n_comparisons++;
}

/* The same allocations, whatever the arena. */
static void take_some(struct Arena *arena) {
    const struct Backend *be = arena->be;
    float *first = arena_f32(arena, 5);
    int64_t mark = arena_mark(arena);
    Act *second = arena_act(arena, 100);
    double *third = arena_f64(arena, 9);
    assert_int_equal((uintptr_t)second % 64, 0);
    assert_int_equal((uintptr_t)third % 64, 0);
    assert_true((char *)second >= (char *)first + 5 * sizeof(float));
    assert_true((char *)third >= (char *)second + 100 * dtype_bytes(be->act_dtype));
    arena_release(arena, mark);
    assert_ptr_equal(arena_act(arena, 3), second); /* released memory is given out again */
    assert_int_equal(arena_mark(arena), mark + 64);
    assert_non_null(arena_f32(arena, 0));
}

static void test_arena(void **state) {
    struct OpSuite *suite = *state;
    struct Arena measuring, arena;
    arena_init_measuring(&measuring, suite->be);
    take_some(&measuring);
    int64_t act_bytes = (100 * dtype_bytes(suite->be->act_dtype) + 63) / 64 * 64;
    assert_int_equal(measuring.peak, 64 + act_bytes + 128);

    arena_init(&arena, suite->be, measuring.peak);
    take_some(&arena);
    assert_int_equal(arena.peak, measuring.peak);
    arena_release(&arena, 0);
    float *all = arena_f32(&arena, measuring.peak / (int64_t)sizeof(float));
    suite->be->zero(suite->be, all, measuring.peak); /* what was planned is really there */
    suite->n_comparisons++;
    arena_free(&arena);
    arena_free(&measuring);
}

/* Asking for more than was planned must end the program, in a child here. */
static void test_arena_overflow_is_fatal(void **state) {
    struct OpSuite *suite = *state;
    struct Arena arena;
    arena_init(&arena, suite->be, 256);
    pid_t child = fork();
    if (child == 0) {
        freopen("/dev/null", "w", stderr);
        signal(SIGABRT, SIG_DFL);
        arena_f32(&arena, 65);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    assert_non_null(arena_f32(&arena, 64));
    arena_free(&arena);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_alloc_is_zeroed_and_aligned), cmocka_unit_test(test_copy_and_zero),
        cmocka_unit_test(test_copy_rows),                   cmocka_unit_test(test_upload_and_download_parts),
        cmocka_unit_test(test_uploads_beside),              cmocka_unit_test(test_downloads_beside),
        cmocka_unit_test(test_downloads_that_are_none),
        cmocka_unit_test(test_arena),                       cmocka_unit_test(test_arena_overflow_is_fatal),
    };
    return op_run_tests("memory", tests, sizeof tests / sizeof *tests);
}
