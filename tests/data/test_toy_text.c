/* The toy text embedding: words, not bytes, decide; rows are fixed Gaussian draws. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "data/toy_text.h"

enum { DIM = 257, ROWS = 8 };

static void test_words(void **state) {
    (void)state;
    float a[ROWS * DIM], b[ROWS * DIM];
    assert_int_equal(toy_text_embed("A red  square, moving left!", DIM, a, ROWS), 5);
    assert_int_equal(toy_text_embed("a RED square\tmoving left", DIM, b, ROWS), 5);
    assert_memory_equal(a, b, 5 * DIM * sizeof *a);
    assert_int_equal(toy_text_embed("left", DIM, b, ROWS), 1);
    assert_memory_equal(a + 4 * DIM, b, DIM * sizeof *a);
    assert_int_equal(toy_text_embed("", DIM, b, ROWS), 0);
    assert_int_equal(toy_text_embed(" ,;!", DIM, b, ROWS), 0);
    assert_int_equal(toy_text_embed("größer 红色", DIM, b, ROWS), 2);
}

static void test_rows_beyond_room_are_left_alone(void **state) {
    (void)state;
    float a[3 * DIM], b[3 * DIM];
    for (int i = 0; i < 3 * DIM; i++) a[i] = 7;
    assert_int_equal(toy_text_embed("one two three", DIM, a, 2), 3);
    for (int i = 0; i < DIM; i++) assert_true(a[2 * DIM + i] == 7);
    assert_int_equal(toy_text_embed("one two three", DIM, b, 3), 3);
    assert_memory_equal(a, b, 2 * DIM * sizeof *a);
    assert_int_equal(toy_text_embed("one two three", DIM, NULL, 0), 3);
}

/* Unit variance and near orthogonality of different words, each within five standard errors. */
static void test_rows_are_gaussian(void **state) {
    (void)state;
    static const char *const words[] = {"red",    "blue",   "left", "right",
                                        "square", "circle", "up",   "ab"};
    float rows[ROWS][DIM];
    double sum = 0, square = 0;
    for (int w = 0; w < ROWS; w++) toy_text_embed(words[w], DIM, rows[w], 1);
    for (int w = 0; w < ROWS; w++)
        for (int i = 0; i < DIM; i++) {
            sum += rows[w][i];
            square += (double)rows[w][i] * rows[w][i];
        }
    double n = ROWS * DIM;
    assert_true(fabs(sum / n) < 5 / sqrt(n));
    assert_true(fabs(square / n - 1) < 5 * sqrt(2 / n));
    for (int w = 0; w < ROWS; w++)
        for (int other = 0; other < w; other++) {
            double dot = 0;
            for (int i = 0; i < DIM; i++) dot += (double)rows[w][i] * rows[other][i];
            assert_true(fabs(dot) / DIM < 5 / sqrt(DIM));
        }
}

/* Data sets hold these rows: they must never change. */
static void test_known_values(void **state) {
    (void)state;
    static const float expected[4] = {-1.9447733f, -0.9957391f, 2.2272354f, -0.3412629f};
    float row[4];
    assert_int_equal(toy_text_embed("Red", 4, row, 1), 1);
    for (int i = 0; i < 4; i++) assert_true(fabsf(row[i] - expected[i]) < 1e-6f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_rows_beyond_room_are_left_alone),
        cmocka_unit_test(test_rows_are_gaussian),
        cmocka_unit_test(test_known_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
