/* Weights in shares: what is allocated and sent is what is planned, and what a formula says; shares tile
 * the weights, and come back whole; passes that a device learns with whole weights it learns with shares
 * of the optimizer's, too.
 *
 *     [mpirun -np N] test_shard [cpu | cuda f32 | cuda bf16]
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "counting_backend.h"
#include "kernels/backend_open.h"
#include "plan_fixture.h"
#include "train/kd_pairs.h"

static struct Backend *device;
static struct Comm *world; /* on its memory */

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

static bool sharded_run_init(struct ShardedRun *r, int small, const char *const *overrides) {
    struct Error err;
    *r = (struct ShardedRun){.backend = counting_backend(device)};
    small_config(&r->config, small);
    override_all(&r->config, overrides);
    if (!config_check(&r->config, &err)) fail_msg("%s", err.text);
    const struct Config *c = &r->config;
    if (!rank_grid_init(&r->grid, c, world->n_ranks, world->rank, &err)) {
        config_free(&r->config);
        return false;
    }
    int64_t batch = c->train.micro_batch;
    struct MemoryPlan plan = memory_plan_make(c, small_video, &r->grid, device->act_dtype);
    r->planned_bytes = memory_plan_total(&plan);
    r->host_video = small_floats(batch * video_elems(small_video, c->model.in_dim), 10);
    r->host_text = small_floats(batch * c->model.text_len * c->model.text_dim, 11);
    parallel_open(&r->parallel, &r->grid, world);
    learner_init(&r->learner, c, &r->backend.table, &r->parallel, small_video, batch, r->host_text,
                 plan.step);
    return true;
}

static void load(struct ShardedRun *r) {
    small_weights(&r->learner.nets);
    learner_weights_loaded(&r->learner);
}

static void sharded_run_free(struct ShardedRun *r) {
    learner_free(&r->learner);
    parallel_close(&r->parallel);
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
        struct LearnerPass pass = {.samples = {.first = at,
                                               .n = end - at < micro ? end - at : micro,
                                               .video = r->host_video,
                                               .text = r->host_text,
                                               .indices = samples},
                                   .last = end - at <= micro};
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
    struct PlanTarget target = simple_target(world->n_ranks, small_video, device->act_dtype);
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

/* The first configuration has all roles, and the first three ways all kinds of traffic: these are for a
 * device, with passes of one sample, for an emulated one takes its time. */
static void test_as_planned(void **state) {
    static const int chosen[] = {7, 0, 3, 4, 8, 10}; /* of small_config */
    static const char *const ways[][3] = {{"parallel.shard=optimizer"},
                                          {"parallel.shard=full"},
                                          {"parallel.shard=full", "parallel.sequence=2"},
                                          {"parallel.shard=none"},
                                          {"parallel.shard=optimizer", "parallel.replicas=2"},
                                          {"parallel.shard=full", "parallel.replicas=2"},
                                          {"parallel.shard=none", "parallel.sequence=2"}};
    (void)state;
    bool on_host = strcmp(device->name, "cpu") == 0;
    size_t n_chosen = on_host ? sizeof chosen / sizeof *chosen : 1;
    size_t n_ways = on_host ? sizeof ways / sizeof *ways : 3;
    for (size_t c = 0; c < n_chosen; c++)
        for (size_t way = 0; way < n_ways; way++) {
            const char *overrides[] = {
                ways[way][0], on_host ? "train.global_batch=8" : "train.global_batch=2",
                on_host ? "train.micro_batch=2" : "train.micro_batch=1", ways[way][1], NULL};
            check_as_planned(chosen[c], overrides);
        }
}

/* Two batches of KD's pairs, in the memory of the step; returns what this rank sent for the second. */
static int64_t make_pairs(struct ShardedRun *r) {
    struct Learner *l = &r->learner;
    struct Sampler sampler = kd_pair_sampler(&l->nets);
    int64_t before = 0, n = r->config.train.micro_batch, n_video = networks_latent_elems(&l->nets);
    float *clips = xmalloc((size_t)(n * n_video) * sizeof *clips);
    struct SampleSet set = {
        .n = n, .text = r->host_text, .neg_text = r->host_text, .clips = clips};
    for (int batch = 0; batch < 2; batch++) {
        before = parallel_sent_bytes(&r->parallel);
        learner_begin_pairs(l);
        sampler_run(&sampler, set, n, &l->arena);
    }
    for (int64_t i = 0; i < n * n_video; i++) assert_true(isfinite(clips[i]));
    free(clips);
    return parallel_sent_bytes(&r->parallel) - before;
}

/* Only what nobody holds whole is sent: shares of a teacher that is not trained. */
static void test_pairs_as_planned(void **state) {
    static const char *const ways[][3] = {{"parallel.shard=full"},
                                          {"parallel.shard=optimizer"},
                                          {"parallel.shard=full", "parallel.sequence=2"},
                                          {"parallel.shard=full", "parallel.replicas=2"}};
    (void)state;
    bool on_host = strcmp(device->name, "cpu") == 0;
    for (size_t way = 0; way < (on_host ? sizeof ways / sizeof *ways : 1); way++) {
        const char *overrides[] = {ways[way][0], "train.global_batch=24", ways[way][1], NULL};
        struct ShardedRun r;
        if (!sharded_run_init(&r, 3, overrides)) continue;
        load(&r);
        struct PlanTarget target = simple_target(world->n_ranks, small_video, device->act_dtype);
        double sent = (double)make_pairs(&r);
        double planned = plan_pairs_make(&r.config, &target).traffic.sent_bytes;
        if (fabs(sent - planned) > 1e-6 * planned)
            fail_msg("%s: pairs sent %.0f bytes, planned %.0f", ways[way][0], sent, planned);
        assert_true((sent > 0.0) == (r.learner.nets.weights[ROLE_TEACHER].share.n_shares > 1));
        assert_int_equal(r.planned_bytes, r.backend.n_bytes);
        sharded_run_free(&r);
    }
}

/* ---- as a formula says ---- */

/* Of a whole unit, padding included, whose tensors that products read have elements of act_bytes. */
static double whole_bytes(const struct Weights *w, int unit, int64_t act_bytes) {
    return 4.0 * (double)whole_piece_elems(w, unit, PIECE_F32) +
           (double)(act_bytes * whole_piece_elems(w, unit, PIECE_ACT));
}

/* Every unit is gathered for forward and, but for the last three, which are still there, for backward;
 * its gradient is summed once: (n - 1) / n of each. */
static void test_full_sharding_sends_what_it_must(void **state) {
    char *batch = xprintf("train.global_batch=%d", world->n_ranks);
    const char *overrides[] = {"parallel.shard=full",  batch, "train.micro_batch=1",
                               "model.num_layers=6", "discriminator.features=[1, 2]", NULL};
    struct ShardedRun r;
    (void)state;
    if (!sharded_run_init(&r, 0, overrides)) fail_msg("a sample for each of %d ranks", world->n_ranks);
    free(batch);
    load(&r);
    const struct Weights *w = &r.learner.nets.weights[ROLE_TEACHER];
    double bytes = 0.0;
    for (int unit = 0; unit < w->table->n_units; unit++) {
        bool stays = unit >= w->table->n_units - 3;
        bytes += whole_bytes(w, unit, dtype_bytes(device->act_dtype)) * (stays ? 1.0 : 2.0) +
                 whole_bytes(w, unit, sizeof(float));
    }
    double expected = bytes * (world->n_ranks - 1) / world->n_ranks;
    iterate(&r, STEP_TEACHER);
    double sent = (double)iterate(&r, STEP_TEACHER);
    if (fabs(sent - expected) > 1e-9 * expected)
        fail_msg("sent %.0f bytes, expected %.0f", sent, expected);
    sharded_run_free(&r);
}

/* ---- learnt by the device ---- */

static struct LearnedRegions learnt_with(const char *shard) {
    static const enum StepKind kinds[] = {STEP_CRITIC, STEP_CRITIC, STEP_CRITIC, STEP_STUDENT,
                                          STEP_STUDENT};
    char *batch = xprintf("train.global_batch=%d", world->n_ranks);
    const char *overrides[] = {shard, batch, "train.micro_batch=1", "model.dim=32",
                               "model.ffn_dim=48", "model.num_heads=2", "model.patch_size=[2, 4, 4]",
                               NULL};
    struct ShardedRun r;
    struct LearnedRegions before = device->learned(device);
    if (!sharded_run_init(&r, 7, overrides)) fail_msg("a sample for each of %d ranks", world->n_ranks);
    free(batch);
    load(&r);
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) iterate(&r, kinds[i]);
    struct LearnedRegions after = device->learned(device);
    sharded_run_free(&r);
    return (struct LearnedRegions){.n_kept = after.n_kept - before.n_kept,
                                   .n_launches = after.n_launches - before.n_launches};
}

/* With the optimizer's shares all that is learnt of whole weights, but once: the student's backbone is
 * the first pass behind its loading, and does not wait for all gathers.  Of units that come and go there
 * is nothing to learn. */
static void test_passes_are_learnt(void **state) {
    (void)state;
    struct LearnedRegions whole = learnt_with("parallel.shard=none");
    struct LearnedRegions shares = learnt_with("parallel.shard=optimizer");
    struct LearnedRegions full = learnt_with("parallel.shard=full");
    bool learns = strcmp(device->name, "cpu") != 0, divided = world->n_ranks > 1;
    assert_int_equal(whole.n_launches > 2, learns);
    assert_int_equal(shares.n_kept, whole.n_kept);
    assert_int_equal(shares.n_launches, whole.n_launches - (learns && divided));
    assert_int_equal(full.n_launches, divided ? 0 : whole.n_launches);
}

/* ---- shares ---- */

/* Of frozen tensors that products read, nothing else is kept. */
static void round_as_kept(const struct Weights *w, const struct ParamDesc *param, float *values) {
    if (w->trained || param->flags & PARAM_F32) return;
    void *act = xmalloc((size_t)(param->n_elems * dtype_bytes(device->act_dtype)));
    dtype_from_f32(act, values, device->act_dtype, param->n_elems);
    dtype_to_f32(values, act, device->act_dtype, param->n_elems);
    free(act);
}

/* What each rank gets from its share, summed over ranks, is every element once. */
static void test_shares_tile_the_weights(void **state) {
    static const char *const overrides[] = {"parallel.shard=full", "train.global_batch=24", NULL};
    struct ShardedRun r;
    (void)state;
    if (!sharded_run_init(&r, 7, overrides)) fail_msg("24 samples for %d ranks", world->n_ranks);
    load(&r);
    for (int role = 0; role < ROLE_COUNT; role++) {
        const struct Weights *w = &r.learner.nets.weights[role];
        float *expected = small_floats(w->table->n_elems, (uint64_t)role);
        for (int p = 0; p < w->table->n_params; p++) {
            const struct ParamDesc *param = &w->table->params[p];
            struct OwnRange own = weights_own(w, p);
            double *all = xcalloc((size_t)param->n_elems * sizeof *all);
            float *mine = xcalloc((size_t)param->n_elems * sizeof *mine);
            weights_get(w, p, mine);
            round_as_kept(w, param, expected + param->offset);
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

int main(int argc, char **argv) {
    bool cuda = argc > 1 && strcmp(argv[1], "cuda") == 0;
    bool bf16 = argc > 2 && strcmp(argv[2], "bf16") == 0;
    struct BackendChoice choice = {.kind = cuda ? BACKEND_CUDA : BACKEND_CPU,
                                   .precision = bf16 ? DTYPE_BF16 : DTYPE_F32,
                                   .deterministic = true,
                                   .graphs = true};
    struct Error err = {0};
    struct Comm *host = comm_create(&err);
    if (!host || !backend_open(choice, host->local_rank, &device, &err)) return error_report(&err);
    world = comm_for_backend(host, device);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_as_planned),
        cmocka_unit_test(test_pairs_as_planned),
        cmocka_unit_test(test_passes_are_learnt),
        cmocka_unit_test(test_full_sharding_sends_what_it_must),
        cmocka_unit_test(test_shares_tile_the_weights),
    };
    int failed = cmocka_run_group_tests_name("shard", tests, NULL, NULL);
    if (world != host) world->destroy(world);
    device->destroy(device);
    host->destroy(host);
    return failed;
}
