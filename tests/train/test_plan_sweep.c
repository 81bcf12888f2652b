/* Sweeps: points against single plans, what stops a curve, and its picture. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "../data/picture_probe.h"
#include "config_fixture.h"
#include "plan_fixture.h"
#include "train/plan_sweep.h"

/* ---- points and curves */

/* No slower than any machine's own links. */
static const struct Network fast_network = {
    .name = "fast", .inside = {1e18, 1.0}, .across = {1e18, 1.0}};

/* Batches of nine on these. */
static const struct SweepCounts few_counts = {.n = 4, .gpus = {1, 3, 9, 10}};

static struct SweepCurve make_curve(const struct Config *config, const struct Machine *machine,
                                    const struct SweepCounts *counts, enum SweepScale scale) {
    struct SweepCurve curve;
    struct PlanTarget target = simple_target(1, small_video, DTYPE_BF16);
    target.machine = machine;
    target.network = &fast_network;
    sweep_curve_make(&curve, "c", config, &target, counts, scale);
    return curve;
}

static void check_point(const struct SweepPoint *point, const struct Config *config) {
    struct Plan plan;
    struct Error err;
    struct PlanTarget target = simple_target(point->n_gpus, small_video, DTYPE_BF16);
    if (!plan_make(&plan, config, &target, &err)) fail_msg("%s", err.text);
    double seconds = plan_totals(&plan).whole.seconds / (double)config->train.iterations;
    double parts = point->update_seconds + point->pass_seconds + point->slowest_seconds +
                   point->exposed_seconds;
    assert_true(point->seconds == seconds && fabs(parts / seconds - 1.0) < 1e-9);
    assert_true(point->run_seconds == plan_run_seconds(&plan));
    assert_true(point->memory_bytes == (double)plan_memory_total(&plan.memory));
    assert_true(point->mfu == plan_mfu(&plan) && point->mfu > 0.0);
    assert_true(point->fits == plan_fits(&plan));
}

static double cost(const struct SweepPoint *point) {
    return point->n_gpus * point->seconds / (double)point->global_batch;
}

static void check_losses(const struct SweepPoint *point, const struct SweepPoint *first) {
    double losses[SWEEP_CAUSES], sum = 0.0;
    sweep_losses(point, first, losses);
    for (int cause = 0; cause < SWEEP_CAUSES; cause++) sum += losses[cause];
    assert_true(fabs(sum - (cost(point) - cost(first))) < 1e-9 * cost(point));
    assert_true(fabs(point->efficiency - cost(first) / cost(point)) < 1e-12);
}

static void test_points_are_plans(void **state) {
    (void)state;
    for (int i = 0; i < SMALL_CONFIGS; i++) {
        struct Config config;
        small_config(&config, i);
        struct SweepCurve curve = make_curve(&config, &simple_machine, &few_counts, SWEEP_STRONG);
        assert_true(curve.n_points == 4 && curve.first == 0);
        for (int k = 0; k < 3; k++) {
            assert_null(curve.points[k].why_not);
            assert_int_equal(curve.points[k].global_batch, SMALL_BATCH);
            check_point(&curve.points[k], &config);
            check_losses(&curve.points[k], &curve.points[0]);
        }
        assert_true(curve.points[0].efficiency == 1.0);
        assert_non_null(curve.points[3].why_not); /* more GPUs than samples */
        expect_contains(curve.points[3].why_not, "train.global_batch");
        sweep_curve_free(&curve);
        config_free(&config);
    }
}

/* Nine samples on one GPU, 27 on three. */
static void test_weak_scaling(void **state) {
    (void)state;
    struct Config config;
    small_config(&config, 0);
    struct SweepCurve curve = make_curve(&config, &simple_machine, &few_counts, SWEEP_WEAK);
    for (int k = 0; k < curve.n_points; k++)
        assert_int_equal(curve.points[k].global_batch, SMALL_BATCH * few_counts.gpus[k]);
    assert_int_equal(config.train.global_batch, SMALL_BATCH);
    config.train.global_batch = 27;
    check_point(&curve.points[1], &config);
    assert_int_equal(curve.first, 0);
    assert_null(curve.points[3].why_not);
    sweep_curve_free(&curve);
    config_free(&config);
}

static void test_contradictions_are_reasons(void **state) {
    (void)state;
    struct Config config;
    small_config(&config, 0);
    config.model.num_heads = 5;
    struct SweepCurve curve = make_curve(&config, &simple_machine, &few_counts, SWEEP_STRONG);
    assert_int_equal(curve.first, -1);
    for (int k = 0; k < curve.n_points; k++) {
        expect_contains(curve.points[k].why_not, "model.num_heads");
        assert_true(curve.points[k].efficiency == 0.0);
    }
    sweep_curve_free(&curve);
    config_free(&config);
}

/* ---- what stops a curve */

/* Links take no time, and nothing but flops does. */
static struct Machine arithmetic_machine(void) {
    struct Machine m = simple_machine;
    m.memory_bandwidth = m.host_bandwidth = m.link_bandwidth = 1e18;
    return m;
}

static enum SweepCause largest_loss(const struct SweepCurve *curve, int i) {
    double losses[SWEEP_CAUSES];
    int most = 0;
    sweep_losses(&curve->points[i], &curve->points[curve->first], losses);
    for (int cause = 1; cause < SWEEP_CAUSES; cause++)
        if (losses[cause] > losses[most]) most = cause;
    return (enum SweepCause)most;
}

/* From one GPU to n_gpus: nine samples do not scale, for this cause. */
static void check_stop(const struct Machine *machine, int n_gpus, enum SweepCause cause,
                       const char *words) {
    struct Config config;
    small_config(&config, 0);
    struct SweepCounts counts = {.n = 2, .gpus = {1, n_gpus}};
    struct SweepCurve curve = make_curve(&config, machine, &counts, SWEEP_STRONG);
    assert_true(curve.first == 0 && curve.last == 0);
    assert_true(curve.points[1].efficiency < SWEEP_LEAST_EFFICIENCY);
    assert_int_equal(largest_loss(&curve, 1), cause);
    check_losses(&curve.points[1], &curve.points[0]);
    char *verdict = sweep_verdict(&curve, machine);
    char *start = xprintf("c: runs on 1 GPU; on %d: efficiency 0.", n_gpus);
    expect_contains(verdict, start);
    expect_contains(verdict, words);
    free(start);
    free(verdict);
    sweep_curve_free(&curve);
    config_free(&config);
}

static void test_causes(void **state) {
    (void)state;
    /* two samples on one of eight GPUs, one on the others: a time of 2 instead of 9 / 8 */
    struct Machine m = arithmetic_machine();
    check_stop(&m, 8, SWEEP_UNEVEN, " is GPUs with less to do waiting for those with more");
    m.link_bandwidth = 1e-6;
    check_stop(&m, 9, SWEEP_COMMUNICATION, " is waiting for communication");
    /* each operation takes a second, whether of one sample or two */
    m = arithmetic_machine();
    m.flops = 1e18, m.launch_seconds = 1.0;
    check_stop(&m, 9, SWEEP_PASSES, " is passes so small that operations run at a lower rate");
    /* bytes alone take time: those of the update stay, whatever the share */
    m.launch_seconds = 0.0, m.memory_bandwidth = 1.0;
    struct Config config;
    small_config(&config, 0);
    struct SweepCurve curve = make_curve(&config, &m, &few_counts, SWEEP_STRONG);
    double losses[SWEEP_CAUSES];
    sweep_losses(&curve.points[2], &curve.points[0], losses);
    double expected = 8.0 / 9.0 * curve.points[0].update_seconds;
    assert_true(expected > 0.0 && fabs(losses[SWEEP_UPDATE] / expected - 1.0) < 1e-9);
    sweep_curve_free(&curve);
    config_free(&config);
}

/* A GPU that has two samples at a time needs more memory than one that has one. */
static void test_memory_stops(void **state) {
    (void)state;
    struct Config config;
    struct Machine m = arithmetic_machine();
    small_config(&config, 0);
    struct SweepCurve free_curve = make_curve(&config, &m, &few_counts, SWEEP_STRONG);
    assert_true(free_curve.points[2].memory_bytes < free_curve.points[1].memory_bytes);
    assert_int_equal(free_curve.last, 2);
    char *verdict = sweep_verdict(&free_curve, &m);
    expect_contains(verdict, "c: scales from 1 to 9 GPUs, where its efficiency is ");
    expect_contains(verdict, "; on 10: ");
    free(verdict);

    m.memory_bytes = free_curve.points[2].memory_bytes;
    struct SweepCurve curve = make_curve(&config, &m, &few_counts, SWEEP_STRONG);
    assert_true(curve.first == 2 && curve.last == 2);
    assert_true(curve.points[0].efficiency == 0.0 && curve.points[2].efficiency == 1.0);
    verdict = sweep_verdict(&curve, &m);
    expect_contains(verdict,
                    "c: runs on 9 GPUs; on 3: it takes 0.01 GB of memory, a GPU has 0.01; on 10: ");
    free(verdict);
    sweep_curve_free(&curve);

    m.memory_bytes -= 1.0;
    curve = make_curve(&config, &m, &few_counts, SWEEP_STRONG);
    assert_int_equal(curve.first, -1);
    verdict = sweep_verdict(&curve, &m);
    expect_contains(verdict, "c: does not run; on 1: it takes ");
    expect_contains(verdict, "; on 10: ");
    free(verdict);
    sweep_curve_free(&curve);
    sweep_curve_free(&free_curve);
    config_free(&config);
}

/* ---- the picture */

static int64_t count_grey(const struct Sweep *sweep, const char *path) {
    double top, bottom;
    struct Error err;
    if (!sweep_draw(path, sweep, 1, &err)) fail_msg("%s", err.text);
    assert_true(picture_find_colour(path, 0x1F, 0x70, 0xAD, &top, &bottom) > 1000);
    return picture_find_colour(path, 0x6B, 0x73, 0x80, &top, &bottom);
}

/* Points that do not fit have rings of grey. */
static void test_misfits_are_ringed(void **state) {
    struct Config config;
    struct SweepKeys keys;
    struct Error err;
    small_config(&config, 0);
    struct Machine m = arithmetic_machine();
    struct SweepCurve curve = make_curve(&config, &m, &few_counts, SWEEP_STRONG);
    assert_true(sweep_keys_parse(&keys, NULL, &err));
    struct Sweep sweep = {
        .path = "c", .machine = &m, .network = &fast_network, .keys = &keys, .curves = &curve};
    char *path = xprintf("%s/rings.png", (char *)*state);
    int64_t n_fitting = count_grey(&sweep, path);
    sweep_curve_free(&curve);
    m.memory_bytes = 1.0;
    curve = make_curve(&config, &m, &few_counts, SWEEP_STRONG);
    int64_t n_ringed = count_grey(&sweep, path);
    assert_true(n_ringed > n_fitting + 100);
    free(path);
    sweep_curve_free(&curve);
    config_free(&config);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_points_are_plans),
        cmocka_unit_test(test_weak_scaling),
        cmocka_unit_test(test_contradictions_are_reasons),
        cmocka_unit_test(test_causes),
        cmocka_unit_test(test_memory_stops),
        cmocka_unit_test_setup_teardown(test_misfits_are_ringed, fixture_set_up, fixture_tear_down),
    };
    return cmocka_run_group_tests_name("plan_sweep", tests, NULL, NULL);
}
