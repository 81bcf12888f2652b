/* What every room stands on: element types, Philox, errors. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "dtype.h"
#include "error.h"
#include "philox.h"

/* ---- Element types. ---- */

/* A 16-bit format: `exponent_bits`, and the rest mantissa. */
struct Format16 {
    enum Dtype dtype;
    int exponent_bits;
};

static const struct Format16 formats[] = {{DTYPE_BF16, 8}, {DTYPE_F16, 5}};

/* The value of a bit pattern, from the definition of IEEE 754's binary formats. */
static double naive_decode(struct Format16 f, uint16_t bits) {
    int mantissa_bits = 15 - f.exponent_bits, bias = (1 << (f.exponent_bits - 1)) - 1;
    int exponent = bits >> mantissa_bits & ((1 << f.exponent_bits) - 1);
    int mantissa = bits & ((1 << mantissa_bits) - 1);
    double sign = bits & 0x8000 ? -1.0 : 1.0;
    if (exponent == (1 << f.exponent_bits) - 1) return mantissa ? NAN : sign * INFINITY;
    if (exponent == 0) return sign * ldexp(mantissa, 1 - bias - mantissa_bits);
    return sign * ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
}

static uint16_t encode(enum Dtype dtype, float value) {
    uint16_t bits;
    dtype_from_f32(&bits, &value, dtype, 1);
    return bits;
}

static void test_dtype_every_16_bit_pattern(void **state) {
    (void)state;
    for (int f = 0; f < 2; f++) {
        for (uint32_t i = 0; i < 0x10000; i++) {
            uint16_t bits = (uint16_t)i;
            double expected = naive_decode(formats[f], bits);
            float got;
            dtype_to_f32(&got, &bits, formats[f].dtype, 1);
            if (isnan(expected)) {
                assert_true(isnan(got));
                assert_true(isnan(naive_decode(formats[f], encode(formats[f].dtype, got))));
                continue;
            }
            assert_true((double)got == expected && !signbit(got) == !signbit(expected));
            assert_int_equal(encode(formats[f].dtype, got), bits);
        }
    }
}

/* Between neighbours: halfway goes to the even one, anything else to the nearer one. */
static void test_dtype_rounds_to_nearest_even(void **state) {
    (void)state;
    for (int f = 0; f < 2; f++) {
        enum Dtype dtype = formats[f].dtype;
        uint32_t infinity = dtype == DTYPE_BF16 ? 0x7f80 : 0x7c00;
        for (uint32_t bits = 0; bits + 1 < infinity; bits++) {
            double low = naive_decode(formats[f], (uint16_t)bits);
            double high = naive_decode(formats[f], (uint16_t)(bits + 1));
            float halfway = (float)(0.5 * (low + high));
            assert_true((double)halfway == 0.5 * (low + high));
            assert_int_equal(encode(dtype, halfway), bits + (bits & 1));
            assert_int_equal(encode(dtype, nextafterf(halfway, 0.0f)), bits);
            assert_int_equal(encode(dtype, nextafterf(halfway, INFINITY)), bits + 1);
            assert_int_equal(encode(dtype, -halfway), 0x8000 | (bits + (bits & 1)));
        }
    }
}

static void test_dtype_overflows_to_infinity(void **state) {
    (void)state;
    assert_int_equal(encode(DTYPE_F16, 65519.996f), 0x7bff);
    assert_int_equal(encode(DTYPE_F16, 65520.0f), 0x7c00);
    assert_int_equal(encode(DTYPE_F16, -1e30f), 0xfc00);
    assert_int_equal(encode(DTYPE_BF16, FLT_MAX), 0x7f80);
    assert_int_equal(encode(DTYPE_BF16, -INFINITY), 0xff80);
    assert_int_equal(encode(DTYPE_F16, INFINITY), 0x7c00);
}

/* All types, at addresses that no type is aligned to, with nothing written beyond the end. */
static void test_dtype_round_trip_unaligned(void **state) {
    (void)state;
    const float values[] = {0.0f, -1.0f, 2.0f, -96.0f, 3.0f, 127.0f, 1.0f};
    enum { N = sizeof values / sizeof *values };
    for (int dtype = 0; dtype < DTYPE_COUNT; dtype++) {
        unsigned char stored[1 + N * 8 + 1];
        float back[N];
        memset(stored, 0xaa, sizeof stored);
        dtype_from_f32(stored + 1, values, (enum Dtype)dtype, N);
        assert_int_equal(stored[0], 0xaa);
        assert_int_equal(stored[1 + N * dtype_bytes((enum Dtype)dtype)], 0xaa);
        dtype_to_f32(back, stored + 1, (enum Dtype)dtype, N);
        assert_memory_equal(back, values, sizeof values);
    }
    const double precise[] = {1.0 + 0x1p-30, -1e-300};
    const int64_t whole[] = {-5, 1ll << 40};
    float single[2];
    dtype_to_f32(single, precise, DTYPE_F64, 2);
    assert_true(single[0] == 1.0f && single[1] == 0.0f);
    dtype_to_f32(single, whole, DTYPE_I64, 2);
    assert_true(single[0] == -5.0f && single[1] == 0x1p40f);
    int64_t truncated[2];
    dtype_from_f32(truncated, (const float[]){2.9f, -2.9f}, DTYPE_I64, 2);
    assert_true(truncated[0] == 2 && truncated[1] == -2);
}

static void test_dtype_names(void **state) {
    (void)state;
    for (int i = 0; i < DTYPE_COUNT; i++) {
        enum Dtype dtype = DTYPE_COUNT;
        assert_true(dtype_parse(dtype_name((enum Dtype)i), &dtype));
        assert_int_equal(dtype, i);
    }
    enum Dtype dtype = DTYPE_COUNT;
    assert_true(dtype_parse("BF16", &dtype));
    assert_int_equal(dtype, DTYPE_BF16);
    const char *wrong[] = {"", "f", "bf1", "bf166", "float32", "f32 ", "i32"};
    dtype = DTYPE_COUNT;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        assert_false(dtype_parse(wrong[i], &dtype));
    assert_int_equal(dtype, DTYPE_COUNT);
    assert_int_equal(dtype_bytes(DTYPE_F32), 4);
    assert_int_equal(dtype_bytes(DTYPE_BF16), 2);
    assert_int_equal(dtype_bytes(DTYPE_F16), 2);
    assert_int_equal(dtype_bytes(DTYPE_F64), 8);
    assert_int_equal(dtype_bytes(DTYPE_I64), 8);
}

/* ---- Philox: the known answers that come with Random123. ---- */

static void test_philox_known_answers(void **state) {
    (void)state;
    const struct {
        uint32_t counter[4], key[2], answer[4];
    } known[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        const uint32_t *c = known[i].counter;
        uint64_t seed = known[i].key[0] | (uint64_t)known[i].key[1] << 32;
        struct Philox got = philox(seed, c[0], c[1], c[2], c[3]);
        assert_memory_equal(got.word, known[i].answer, sizeof got.word);
    }
}

static void test_philox_uniform_never_ends(void **state) {
    (void)state;
    assert_true(philox_uniform(0) == 0x1p-33);
    assert_true(philox_uniform(0xffffffffu) == 1.0 - 0x1p-33);
    assert_true(philox_uniform(0x80000000u) == 0.5 + 0x1p-33);
}

/* ---- Errors. ---- */

static void test_error_set_and_prefix(void **state) {
    (void)state;
    struct Error err = {0};
    assert_false(error_set(&err, "%s: expected %d", "run.yaml", 3));
    assert_string_equal(err.text, "run.yaml: expected 3");
    assert_int_equal(err.exit_code, EXIT_USER);
    err.exit_code = EXIT_FAILED;
    assert_false(error_prefix(&err, "while reading %s", "x"));
    assert_string_equal(err.text, "while reading x: run.yaml: expected 3");
    assert_int_equal(err.exit_code, EXIT_FAILED);
}

/* Messages of any length are cut, never overflow. */
static void test_error_is_cut(void **state) {
    (void)state;
    struct {
        struct Error err;
        char canary[16];
    } s;
    memset(&s, 'c', sizeof s);
    char longer[3000];
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = 0;
    error_set(&s.err, "%s", longer);
    assert_int_equal(strlen(s.err.text), sizeof s.err.text - 1);
    error_prefix(&s.err, "file");
    assert_int_equal(strlen(s.err.text), sizeof s.err.text - 1);
    assert_memory_equal(s.err.text, "file: xxx", 9);
    error_prefix(&s.err, "%s", longer);
    assert_int_equal(strlen(s.err.text), sizeof s.err.text - 1);
    for (size_t i = 0; i < sizeof s.canary; i++) assert_int_equal(s.canary[i], 'c');
}

/* Runs `act` in a child; returns its wait status and what it wrote to stderr. */
static int run_in_child(void (*act)(void), char *text, size_t n_bytes) {
    int ends[2], status = 0;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        close(ends[0]);
        signal(SIGABRT, SIG_DFL);
        act();
        _exit(0);
    }
    close(ends[1]);
    size_t used = 0;
    for (ssize_t n; (n = read(ends[0], text + used, n_bytes - 1 - used)) > 0;) used += (size_t)n;
    text[used] = 0;
    close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

static void report(void) {
    struct Error err;
    error_set(&err, "no such %s", "key\x1b[2J\n");
    err.exit_code = EXIT_DIVERGED;
    _exit(error_report(&err));
}

static void break_invariant(void) {
    int n_ranks = 3;
    TMD_CHECK(n_ranks == 4, "saw %d ranks", n_ranks);
}

static void keep_invariant(void) {
    int evaluated = 0;
    TMD_CHECK(++evaluated == 1, "evaluated %d times", evaluated);
    TMD_CHECK(evaluated == 1, "evaluated %d times", evaluated);
}

static void end_all_ranks(int exit_code) {
    _exit(40 + exit_code);
}

static void break_invariant_with_handler(void) {
    fatal_set_handler(7, end_all_ranks);
    break_invariant();
}

static void test_error_report(void **state) {
    (void)state;
    char text[4096];
    int status = run_in_child(report, text, sizeof text);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == EXIT_DIVERGED);
    assert_string_equal(text, "tmd: no such key?[2J?\n");
}

static void test_check_ends_the_program(void **state) {
    (void)state;
    char text[4096];
    int status = run_in_child(break_invariant, text, sizeof text);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    assert_non_null(strstr(text, "saw 3 ranks"));
    assert_non_null(strstr(text, "n_ranks == 4"));
    assert_non_null(strstr(text, "test_base.c"));
    status = run_in_child(break_invariant_with_handler, text, sizeof text);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 40 + EXIT_FAILED);
    assert_non_null(strstr(text, "rank 7"));
    status = run_in_child(keep_invariant, text, sizeof text);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_string_equal(text, "");
}

static void test_allocation(void **state) {
    (void)state;
    void *nothing = xmalloc(0);
    assert_non_null(nothing);
    free(nothing);
    unsigned char *zeroed = xcalloc(1000);
    for (int i = 0; i < 1000; i++) assert_int_equal(zeroed[i], 0);
    memset(zeroed, 5, 1000);
    zeroed = xrealloc(zeroed, 2000);
    for (int i = 0; i < 1000; i++) assert_int_equal(zeroed[i], 5);
    free(zeroed);
    char *copy = xstrdup("wan"), *text = xprintf("%s-%05d", copy, 42);
    assert_string_equal(copy, "wan");
    assert_string_equal(text, "wan-00042");
    free(copy);
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dtype_every_16_bit_pattern),
        cmocka_unit_test(test_dtype_rounds_to_nearest_even),
        cmocka_unit_test(test_dtype_overflows_to_infinity),
        cmocka_unit_test(test_dtype_round_trip_unaligned),
        cmocka_unit_test(test_dtype_names),
        cmocka_unit_test(test_philox_known_answers),
        cmocka_unit_test(test_philox_uniform_never_ends),
        cmocka_unit_test(test_error_set_and_prefix),
        cmocka_unit_test(test_error_is_cut),
        cmocka_unit_test(test_error_report),
        cmocka_unit_test(test_check_ends_the_program),
        cmocka_unit_test(test_allocation),
    };
    return cmocka_run_group_tests_name("base", tests, NULL, NULL);
}
