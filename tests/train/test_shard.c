/* Weights in shares, under mpirun: what is allocated and sent is what is planned, and what a formula
 * says; shares tile the weights, and come back whole. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "counting_backend.h"
#include "philox.h"
#include "plan_fixture.h"

static struct Comm *world;

/* ---- a learner on these ranks ---- */

struct ShardedRun {
    struct Config config;
    struct CountingBackend backend;
    struct RankGrid grid;
    struct Parallel parallel;
    struct Learner learner;
    float *host_video, *host_text;
    int64_t planned_bytes;
};

/* Uniform within +-0.1. */
static float *random_floats(int64_t n, uint64_t seed) {
    float *x = xmalloc((size_t)n * sizeof *x);
    for (int64_t i = 0; i < n; i++)
        x[i] = 0.2f * ((float)philox_uniform(philox(seed, (uint32_t)i, 0, 0, 0).word[0]) - 0.5f);
    return x;
}

static bool sharded_run_init(struct ShardedRun *r, int small, const char *const *overrides) {
    struct Error err;
    *r = (struct ShardedRun){.backend = counting_backend()};
    small_config(&r->config, small);
    override_all(&r->config, overrides);
    if (!config_check(&r->config, &err)) fail_msg("%s", err.text);
    const struct Config *c = &r->config;
    if (!rank_grid_init(&r->grid, c, world->n_ranks, world->rank, &err)) {
        r->backend.cpu->destroy(r->backend.cpu);
        config_free(&r->config);
        return false;
    }
    int64_t batch = c->train.micro_batch;
    struct MemoryPlan plan = memory_plan_make(c, small_video, &r->grid, DTYPE_F32);
    r->planned_bytes = memory_plan_total(&plan);
    r->host_video = random_floats(batch * video_elems(small_video, c->model.in_dim), 10);
    r->host_text = random_floats(batch * c->model.text_len * c->model.text_dim, 11);
    parallel_open(&r->parallel, &r->grid, world);
    learner_init(&r->learner, c, &r->backend.table, &r->parallel, small_video, batch, r->host_text,
                 plan.step);
    return true;
}

/* The same values on every rank, whatever its share. */
static void load(struct ShardedRun *r) {
    struct Networks *nets = &r->learner.nets;
    for (int role = 0; role < ROLE_COUNT; role++) {
        if (!nets->plan.present[role]) continue;
        float *host = random_floats(networks_table(nets, (enum Role)role)->n_elems, (uint64_t)role);
        weights_upload(&nets->weights[role], host);
        free(host);
    }
    learner_loaded(&r->learner);
}

static void sharded_run_free(struct ShardedRun *r) {
    learner_free(&r->learner);
    parallel_close(&r->parallel);
    r->backend.cpu->destroy(r->backend.cpu);
    free(r->host_video);
    free(r->host_text);
    config_free(&r->config);
}

/* Returns what this rank sent. */
static int64_t iterate(struct ShardedRun *r, enum StepKind kind) {
    static const int64_t samples[STUDENT_MAX_BATCH] = {0};
    struct Learner *l = &r->learner;
    int64_t before = parallel_sent_bytes(&r->parallel), micro = r->config.train.micro_batch;
    int64_t first = batch_share_start(&r->config, &r->grid, r->grid.data_rank);
    int64_t end = first + batch_share(&r->config, &r->grid);
    learner_begin(l, kind);
    for (int64_t at = first; at < end; at += micro) {
        struct StepInputs in;
        struct StepResult result;
        struct LearnerPass pass = {.first = at,
                                   .batch = end - at < micro ? end - at : micro,
                                   .last = end - at <= micro,
                                   .host_video = r->host_video,
                                   .host_text = r->host_text,
                                   .host_samples = samples};
        int64_t mark = arena_mark(&l->arena);
        learner_pass(l, kind, &pass, &in, &result);
        arena_release(&l->arena, mark);
    }
    learner_sum(l, kind);
    for (int role = 0; role < ROLE_COUNT; role++) {
        if (!learner_trains(l, kind, (enum Role)role)) continue;
        double norm = learner_gradient_norm(l, (enum Role)role);
        assert_true(isfinite(norm) && norm > 0.0);
        learner_update(l, (enum Role)role, 0, 1, norm);
    }
    return parallel_sent_bytes(&r->parallel) - before;
}

/* ---- as planned ---- */

static void check_as_planned(int small, const char *const *overrides) {
    struct ShardedRun r;
    if (!sharded_run_init(&r, small, overrides)) return;
    assert_int_equal(r.planned_bytes, r.backend.n_bytes);
    load(&r);
    struct PlanTarget target = simple_target(world->n_ranks, small_video, DTYPE_F32);
    for (int i = 0; i < n_kinds(&r.config); i++) {
        enum StepKind kind = step_kind_at(&r.config, i);
        struct PlanStep step = plan_step_make(&r.config, &target, kind);
        iterate(&r, kind); /* learns the order of units */
        double sent = (double)iterate(&r, kind);
        if (fabs(sent - step.traffic.sent_bytes) > 1e-6 * step.traffic.sent_bytes)
            fail_msg("configuration %d, %s %s, %s step: sent %.0f bytes, planned %.0f", small,
                     overrides[0], overrides[1] ? overrides[1] : "", step_kind_name(kind), sent,
                     step.traffic.sent_bytes);
        assert_true(world->n_ranks == 1 || sent > 0.0);
    }
    assert_int_equal(r.planned_bytes, r.backend.n_bytes);
    sharded_run_free(&r);
}

static void test_as_planned(void **state) {
    static const int chosen[] = {0, 4, 7, 8, 10}; /* of small_config */
    static const char *const ways[][3] = {{"parallel.shard=none"},
                                          {"parallel.shard=optimizer"},
                                          {"parallel.shard=full"},
                                          {"parallel.shard=optimizer", "parallel.replicas=2"},
                                          {"parallel.shard=full", "parallel.replicas=2"},
                                          {"parallel.shard=none", "parallel.sequence=2"},
                                          {"parallel.shard=full", "parallel.sequence=2"}};
    (void)state;
    for (size_t c = 0; c < sizeof chosen / sizeof *chosen; c++)
        for (size_t way = 0; way < sizeof ways / sizeof *ways; way++) {
            const char *overrides[] = {ways[way][0], "train.global_batch=8", ways[way][1], NULL};
            check_as_planned(chosen[c], overrides);
        }
}

/* ---- as a formula says ---- */

static double padded_bytes(const struct Weights *w, int unit) {
    return 4.0 * (double)(whole_piece_elems(w, unit, PIECE_F32) +
                          whole_piece_elems(w, unit, PIECE_ACT));
}

/* Every unit is gathered for forward and, but for the last three, which are still there, for backward;
 * its gradient is summed once: (n - 1) / n of each. */
static void test_full_sharding_sends_what_it_must(void **state) {
    static const char *const overrides[] = {"parallel.shard=full", "train.global_batch=24",
                                            "train.micro_batch=24", "model.num_layers=6",
                                            "discriminator.features=[1, 2]", NULL};
    struct ShardedRun r;
    (void)state;
    if (!sharded_run_init(&r, 0, overrides)) fail_msg("24 samples for %d ranks", world->n_ranks);
    load(&r);
    const struct Weights *w = &r.learner.nets.weights[ROLE_TEACHER];
    double bytes = 0.0;
    for (int unit = 0; unit < w->table->n_units; unit++) {
        bool stays = unit >= w->table->n_units - 3;
        bytes += padded_bytes(w, unit) * (stays ? 2.0 : 3.0);
    }
    double expected = bytes * (world->n_ranks - 1) / world->n_ranks;
    iterate(&r, STEP_TEACHER);
    double sent = (double)iterate(&r, STEP_TEACHER);
    if (fabs(sent - expected) > 1e-9 * expected)
        fail_msg("sent %.0f bytes, expected %.0f", sent, expected);
    sharded_run_free(&r);
}

/* ---- shares ---- */

/* What each rank gets from its share, summed over ranks, is every element once. */
static void test_shares_tile_the_weights(void **state) {
    static const char *const overrides[] = {"parallel.shard=full", "train.global_batch=24", NULL};
    struct ShardedRun r;
    (void)state;
    if (!sharded_run_init(&r, 7, overrides)) fail_msg("24 samples for %d ranks", world->n_ranks);
    load(&r);
    for (int role = 0; role < ROLE_COUNT; role++) {
        const struct Weights *w = &r.learner.nets.weights[role];
        float *expected = random_floats(w->table->n_elems, (uint64_t)role);
        for (int p = 0; p < w->table->n_params; p++) {
            const struct ParamDesc *param = &w->table->params[p];
            struct OwnRange own = weights_own(w, p);
            double *all = xcalloc((size_t)param->n_elems * sizeof *all);
            float *mine = xcalloc((size_t)param->n_elems * sizeof *mine);
            weights_get(w, p, mine);
            for (int64_t i = own.begin; i < own.end; i++) all[i] = (double)mine[i - own.begin];
            world->sum_f64(world, all, param->n_elems);
            for (int64_t i = 0; i < param->n_elems; i++)
                assert_true((float)all[i] == expected[param->offset + i]);
            free(all);
            free(mine);
        }
        free(expected);
    }
    sharded_run_free(&r);
}

int main(void) {
    struct Error err;
    world = comm_create(&err);
    if (!world) return error_report(&err), err.exit_code;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_planned),
        cmocka_unit_test(test_full_sharding_sends_what_it_must),
        cmocka_unit_test(test_shares_tile_the_weights),
    };
    int failed = cmocka_run_group_tests_name("shard", tests, NULL, NULL);
    world->destroy(world);
    return failed;
}
