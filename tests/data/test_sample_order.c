/* The sample order: every sample once per epoch, another order in every epoch and for every seed.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "data/sample_order.h"
#include "error.h"

static void check_bijection(uint64_t seed, int64_t n, int64_t epoch) {
    unsigned char *seen = xcalloc((unsigned long)n);
    for (int64_t i = 0; i < n; i++) {
        int64_t sample = sample_order_at(seed, n, epoch * n + i);
        assert_in_range(sample, 0, n - 1);
        assert_int_equal(seen[sample]++, 0);
    }
    free(seen);
}

static void test_every_sample_once(void **state) {
    (void)state;
    for (int64_t n = 1; n <= 300; n++)
        for (int64_t epoch = 0; epoch < 3; epoch++) check_bijection((uint64_t)n * 7919, n, epoch);
    check_bijection(5, 4096, 1);
    check_bijection(5, 4097, 1);
    check_bijection(UINT64_MAX, 100003, INT64_C(1) << 40);
}

static int64_t count_equal(uint64_t seed_a, int64_t epoch_a, uint64_t seed_b, int64_t epoch_b,
                           int64_t n) {
    int64_t n_equal = 0;
    for (int64_t i = 0; i < n; i++)
        n_equal += sample_order_at(seed_a, n, epoch_a * n + i) ==
                   sample_order_at(seed_b, n, epoch_b * n + i);
    return n_equal;
}

/* Two random permutations agree in one place on average, hardly ever in more than ten. */
static void test_epochs_and_seeds_differ(void **state) {
    (void)state;
    for (int64_t n = 900; n < 910; n++) {
        assert_in_range(count_equal(1, 0, 1, 1, n), 0, 10);
        assert_in_range(count_equal(1, 0, 2, 0, n), 0, 10);
        assert_in_range(count_equal(1, 0, 1, INT64_C(1) << 33, n), 0, 10);
        assert_in_range(count_equal(1, 0, UINT64_C(1) << 32 | 1, 0, n), 0, 10);
        assert_int_equal(count_equal(1, 3, 1, 3, n), n);
    }
}

/* Over many epochs each sample comes first about equally often: chi-square with n - 1 degrees of
 * freedom stays within five standard deviations of its mean. */
static void test_uniform_first_place(void **state) {
    (void)state;
    enum { N = 11, EPOCHS = 5500 };
    int64_t count[N] = {0};
    for (int64_t epoch = 0; epoch < EPOCHS; epoch++) count[sample_order_at(3, N, epoch * N)]++;
    double chi2 = 0, expected = (double)EPOCHS / N;
    for (int i = 0; i < N; i++)
        chi2 += ((double)count[i] - expected) * ((double)count[i] - expected) / expected;
    assert_true(chi2 < (N - 1) + 5 * 4.4721);
}

/* The order is part of what a run is: resumed by a later build, it must still be this one. */
static void test_known_order(void **state) {
    (void)state;
    static const int64_t expected[] = {3, 2, 6, 1, 8, 4, 5, 7, 9, 0};
    for (int i = 0; i < 10; i++) assert_int_equal(sample_order_at(1234, 10, i), expected[i]);
    assert_int_equal(sample_order_at(1234, INT64_C(1) << 40, 12345), INT64_C(688530876656));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_sample_once),
        cmocka_unit_test(test_epochs_and_seeds_differ),
        cmocka_unit_test(test_uniform_first_place),
        cmocka_unit_test(test_known_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
