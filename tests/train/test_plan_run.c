/* The plan against a run on the CPU: its memory against what is allocated, its operations against
 * what a meter sees, its messages against a communicator that counts. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "counting_backend.h"
#include "kernels/meter/backend_meter.h"
#include "plan_fixture.h"

/* ---- a real run on the CPU, counted */

/* Ranks of which there is one: sums are counted, and leave what is there. */
struct CountingComm {
    struct Comm table;
    int64_t messages;
    double n_bytes;
};

static CommTicket counting_sum_start(struct Comm *comm, float *buffer, int64_t n_elems) {
    struct CountingComm *counting = (struct CountingComm *)comm;
    assert_non_null(buffer);
    counting->messages++;
    counting->n_bytes += 4.0 * (double)n_elems;
    return counting->messages;
}

static void counting_finish(struct Comm *comm) {
    (void)comm;
}

/* The learner of rank SMALL_RANKS - 1 on a metered CPU whose allocations and sums are counted. */
struct CountedRun {
    struct Config config;
    struct CountingBackend backend;
    struct Backend *meter;
    struct CountingComm comm;
    struct Parallel parallel;
    struct Learner learner;
    float *host_video, *host_text;
};

static struct RankGrid grid_of(const struct Config *config) {
    struct RankGrid grid;
    struct Error err;
    assert_true(rank_grid_init(&grid, config, SMALL_RANKS, SMALL_RANKS - 1, &err));
    return grid;
}

static void counted_run_init(struct CountedRun *r, int i) {
    *r = (struct CountedRun){.backend = counting_backend(backend_cpu_create()),
                             .comm.table = {.name = "counting",
                                            .rank = SMALL_RANKS - 1,
                                            .n_ranks = SMALL_RANKS,
                                            .sum_start = counting_sum_start,
                                            .finish = counting_finish}};
    small_config(&r->config, i);
    r->meter = backend_meter_create(&r->backend.table);
    struct RankGrid grid = grid_of(&r->config);
    struct MemoryPlan plan = memory_plan_make(&r->config, small_video, &grid, r->meter->act_dtype);
    parallel_open(&r->parallel, &grid, &r->comm.table);
    r->host_video =
        small_floats(SMALL_MICRO_BATCH * video_elems(small_video, r->config.model.in_dim), 10);
    r->host_text =
        small_floats(SMALL_MICRO_BATCH * r->config.model.text_len * r->config.model.text_dim, 11);
    learner_init(&r->learner, &r->config, r->meter, &r->parallel, small_video, SMALL_MICRO_BATCH,
                 r->host_text, plan.step);
    small_weights(&r->learner.nets);
    backend_meter_reset(r->meter);
}

static void counted_run_free(struct CountedRun *r) {
    learner_free(&r->learner);
    parallel_close(&r->parallel);
    r->meter->destroy(r->meter);
    r->backend.inner->destroy(r->backend.inner);
    free(r->host_video);
    free(r->host_text);
    config_free(&r->config);
}

/* Iteration 0 of this rank, whatever its kind is said to be; the meter is at zero before. */
static void iterate(struct CountedRun *r, enum StepKind kind) {
    static const int64_t samples[SMALL_MICRO_BATCH] = {0};
    struct Learner *l = &r->learner;
    int64_t first = SMALL_BATCH * (SMALL_RANKS - 1) / SMALL_RANKS;
    learner_begin(l, kind);
    for (int64_t at = first; at < SMALL_BATCH; at += SMALL_MICRO_BATCH) {
        struct StepInputs in;
        struct StepResult result;
        struct StepScalar scalars[STEP_MAX_SCALARS];
        int64_t left = SMALL_BATCH - at;
        struct LearnerPass pass = {
            .samples = {.first = at,
                        .n = left < SMALL_MICRO_BATCH ? left : SMALL_MICRO_BATCH,
                        .video = r->host_video,
                        .text = r->host_text,
                        .indices = samples},
            .last = left <= SMALL_MICRO_BATCH};
        int64_t mark = arena_mark(&l->arena);
        struct StepContext ctx = learner_pass(l, kind, &pass, &in, &result);
        step_scalars(&ctx, &result, scalars);
        assert_true(isfinite(scalars[0].value));
        arena_release(&l->arena, mark);
    }
    learner_sum(l, kind);
    for (int role = 0; role < ROLE_COUNT; role++) {
        if (!learner_trains(l, kind, (enum Role)role)) continue;
        double norm = learner_gradient_norm(l, (enum Role)role);
        if (!(norm > 0.0))
            fail_msg("%s of a %s step: gradient of norm %g", role_name((enum Role)role),
                     step_kind_name(kind), norm);
        learner_update(l, (enum Role)role, 0, 1, norm);
    }
}

static void check_memory(const struct CountedRun *r) {
    struct RankGrid grid = grid_of(&r->config);
    struct PlanMemory memory =
        plan_memory_make(&r->config, small_video, &grid, DTYPE_F32, &simple_machine);
    assert_int_equal(memory.reserved, 1000);
    assert_int_equal(plan_memory_total(&memory) - memory.reserved, r->backend.n_bytes);

    int64_t saved = 0; /* what is trained has moments */
    for (int role = 0; role < ROLE_COUNT; role++) {
        const int64_t *parts = memory.weights[role];
        if (parts[PLAN_MOMENTS])
            saved += parts[PLAN_MASTER] + parts[PLAN_MOMENTS] + parts[PLAN_EMA];
    }
    assert_int_equal(memory.host, saved);
}

static void check_operations(const struct PlanStep *step, const struct OpTally *run) {
    int n_compared = 0;
    for (int op = 0; op < OP_COUNT; op++) {
        if (step->ops[op].calls != run[op].calls)
            fail_msg("%s in a %s step: %lld calls planned, %lld made", op_name((enum Op)op),
                     step_kind_name(step->kind), (long long)step->ops[op].calls,
                     (long long)run[op].calls);
        assert_true(step->ops[op].flops == run[op].flops);
        assert_true(step->ops[op].bytes == run[op].bytes);
        n_compared += run[op].calls > 0;
    }
    assert_true(n_compared >= 30);
}

static void check_traffic(const struct PlanTraffic *planned, const struct CountingComm *run) {
    assert_true(run->messages > 0);
    assert_int_equal(planned->messages, run->messages);
    assert_true(planned->buffer_bytes == run->n_bytes);
    double ring = run->n_bytes * 2.0 * (SMALL_RANKS - 1) / SMALL_RANKS;
    assert_true(fabs(planned->sent_bytes - ring) < 1e-9 * ring);
}

/* All kinds of steps of a stage.  A step that needs more memory than was planned ends the program;
 * none asks for more than its arena. */
static void check_run(int i) {
    struct CountedRun r;
    counted_run_init(&r, i);
    struct PlanTarget target = simple_target(SMALL_RANKS, small_video, DTYPE_F32);
    bool draws = draws_cost(&r.config);
    check_memory(&r);
    for (int kind = 0; kind < n_kinds(&r.config); kind++) {
        struct PlanStep step = plan_step_make(&r.config, &target, step_kind_at(&r.config, kind));
        r.comm.messages = 0;
        r.comm.n_bytes = 0.0;
        backend_meter_reset(r.meter);
        iterate(&r, step.kind);
        /* where draws cost, the plan is a mean over draws and ranks */
        if (!draws) check_operations(&step, backend_meter_tallies(r.meter));
        check_traffic(&step.traffic, &r.comm);
    }
    check_memory(&r);
    if (!draws && !r.config.preview.every)
        assert_int_equal(r.learner.arena.peak, r.learner.arena.capacity);
    counted_run_free(&r);
}

static void test_runs_are_what_was_planned(void **state) {
    (void)state;
    for (int i = 0; i < SMALL_CONFIGS; i++) check_run(i);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_runs_are_what_was_planned),
    };
    return cmocka_run_group_tests_name("plan_run", tests, NULL, NULL);
}
