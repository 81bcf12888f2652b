/* The training steps of a stage on random data: phases, utilisation and operations.
 *
 * Iterations are timed as a run does them, and then done again under the meter, which waits for
 * each operation: the first tells how long, the second what and where. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/backend_open.h"
#include "kernels/meter/backend_meter.h"
#include "kernels/plan/backend_plan.h"
#include "philox.h"
#include "train/bench.h"
#include "train/optimizer.h"
#include "train/phase_timer.h"
#include "train/trainer.h"

enum BenchPhase { ZERO, PASS, UPDATE, WHOLE, BENCH_PHASES };
static const char *const phase_names[BENCH_PHASES] = {
    "zero gradients", "pass: upload, noise, forward, losses, backward", "update: norm, AdamW, EMA",
    "whole iteration"};

enum { MAX_ITERATIONS = 200 };

struct StepBench {
    struct Backend *meter;
    struct Comm *alone;
    struct Parallel parallel;
    struct Learner learner;
    float *host_video, *host_text;
    int64_t *host_samples;
    int64_t iteration;
    int n; /* iterations measured */
    double seconds[BENCH_PHASES][MAX_ITERATIONS];
    struct OpTally phases[BENCH_PHASES]; /* of all n together */
    double op_seconds[OP_COUNT][MAX_ITERATIONS];
    struct LearnedRegions learned; /* launched: by these n iterations */
};

static float *random_host(int64_t n_elems) {
    float *host = xmalloc((size_t)n_elems * sizeof *host);
    for (int64_t i = 0; i < n_elems; i++)
        host[i] = (float)(2.0 * philox_uniform(philox(2, (uint32_t)i, 0, 0, 0).word[0]) - 1.0);
    return host;
}

/* config must outlive it; arena_bytes as learner_init has it. */
static struct StepBench *step_bench_create(const struct Backend *be, const struct Config *config,
                                           struct VideoShape video, int64_t arena_bytes) {
    struct StepBench *b = xcalloc(sizeof *b);
    int64_t batch = config->train.micro_batch;
    int64_t n_text = batch * config->model.text_len * config->model.text_dim;
    b->meter = backend_meter_create(be);
    b->alone = comm_self_create(be);
    b->host_video = random_host(batch * video_elems(video, config->model.in_dim));
    b->host_text = random_host(n_text);
    b->host_samples = xcalloc((size_t)batch * sizeof *b->host_samples);
    struct RankGrid grid = rank_grid_alone();
    parallel_open(&b->parallel, &grid, b->alone);
    learner_init(&b->learner, config, b->meter, &b->parallel, video, batch, b->host_text,
                 arena_bytes);
    struct Networks *nets = &b->learner.nets;
    for (int role = 0; role < ROLE_COUNT; role++)
        if (nets->plan.present[role]) bench_random_weights(&nets->weights[role]);
    return b;
}

static void step_bench_destroy(struct StepBench *b) {
    learner_free(&b->learner);
    free(b->host_samples);
    free(b->host_text);
    free(b->host_video);
    parallel_close(&b->parallel);
    b->alone->destroy(b->alone);
    b->meter->destroy(b->meter);
    free(b);
}

/* Books what has happened since the last call on `phase`. */
static void book(struct StepBench *b, enum BenchPhase phase, struct OpTally *last,
                 double *last_time) {
    struct OpTally now = op_tally_total(backend_meter_tallies(b->meter));
    b->meter->finish(b->meter);
    double time = wall_seconds();
    struct OpTally *sum = &b->phases[phase];
    b->seconds[phase][b->n] = time - *last_time;
    sum->calls += now.calls - last->calls;
    sum->flops += now.flops - last->flops;
    sum->bytes += now.bytes - last->bytes;
    *last = now;
    *last_time = wall_seconds();
}

static void update(struct StepBench *b, enum StepKind kind) {
    for (int role = 0; role < ROLE_COUNT; role++) {
        if (!learner_trains(&b->learner, kind, (enum Role)role)) continue;
        double norm = learner_gradient_norm(&b->learner, (enum Role)role);
        learner_update(&b->learner, (enum Role)role, b->iteration, b->iteration + 1, norm);
    }
}

/* One micro-batch and its update, as in the trainer. */
static void iterate(struct StepBench *b, enum StepKind kind) {
    struct StepInputs in;
    struct StepResult result;
    struct StepScalar scalars[STEP_MAX_SCALARS];
    struct Learner *l = &b->learner;
    struct BatchSamples samples = {.iteration = b->iteration,
                                   .n = l->batch.capacity,
                                   .video = b->host_video,
                                   .text = b->host_text,
                                   .indices = b->host_samples};
    struct LearnerPass pass = {.samples = samples, .next = samples, .last = true};
    pass.next.iteration++;
    const struct OpTally *ops = backend_meter_tallies(b->meter);
    struct OpTally last = op_tally_total(ops), before = last;
    for (int op = 0; op < OP_COUNT; op++) b->op_seconds[op][b->n] = -ops[op].seconds;
    double begin = wall_seconds(), time = begin;
    learner_begin(l, kind);
    book(b, ZERO, &last, &time);
    int64_t mark = arena_mark(&l->arena);
    struct StepContext ctx = learner_pass(l, kind, &pass, &in, &result);
    step_scalars(&ctx, &result, scalars);
    arena_release(&l->arena, mark);
    learner_sum(l, kind);
    book(b, PASS, &last, &time);
    update(b, kind);
    book(b, UPDATE, &last, &time);
    book(b, WHOLE, &before, &begin);
    for (int op = 0; op < OP_COUNT; op++) b->op_seconds[op][b->n] += ops[op].seconds;
    b->iteration++;
    b->n++;
}

/* Under the meter the same iterations once more: some draw work of their own. */
static void iterate_again(struct StepBench *b, enum StepKind kind) {
    int n = b->n;
    double seconds[BENCH_PHASES][MAX_ITERATIONS];
    memcpy(seconds, b->seconds, sizeof seconds);
    b->iteration -= n;
    b->n = 0;
    backend_meter_reset(b->meter);
    backend_meter_pause(b->meter, false);
    while (b->n < n) iterate(b, kind);
    memcpy(b->seconds, seconds, sizeof seconds);
}

static void measure_kind(struct StepBench *b, enum StepKind kind, double seconds) {
    enum { WARM_UP = 2, AT_LEAST = 3 };
    backend_meter_pause(b->meter, true);
    for (int i = 0; i < WARM_UP; i++) iterate(b, kind);
    b->n = 0;
    memset(b->phases, 0, sizeof b->phases);
    int64_t launched_before = b->meter->learned(b->meter).n_launches;
    double begin = wall_seconds();
    while (b->n < MAX_ITERATIONS && (b->n < AT_LEAST || wall_seconds() - begin < seconds))
        iterate(b, kind);
    b->learned = b->meter->learned(b->meter);
    b->learned.n_launches -= launched_before;
    iterate_again(b, kind);
}

/* What the mathematics of the same iterations needs (plan_step.h): nothing computed twice. */
static double model_flops(const struct StepBench *measured, enum StepKind kind) {
    const struct Learner *l = &measured->learner;
    struct Backend *plan = backend_plan_create(measured->meter->act_dtype);
    struct Config keeping = *l->config; /* its strings are borrowed */
    keeping.train.recompute = RECOMPUTE_NONE;
    struct StepBench *b = step_bench_create(plan, &keeping, l->nets.geometry.video, -1);
    backend_plan_reset(plan);
    b->iteration = measured->iteration - measured->n;
    while (b->n < measured->n) iterate(b, kind);
    double flops = b->phases[WHOLE].flops - backend_plan_scores_again(plan);
    step_bench_destroy(b);
    plan->destroy(plan);
    return flops / measured->n;
}

static struct OpTally per_iteration(struct OpTally sum, int n) {
    return (struct OpTally){sum.calls / n, sum.seconds / n, sum.flops / n, sum.bytes / n};
}

static void report_operations(struct BenchReport *report, struct StepBench *b) {
    const struct OpTally *tallies = backend_meter_tallies(b->meter);
    struct OpRow rows[OP_COUNT];
    int n_rows = 0;
    for (int op = 0; op < OP_COUNT; op++) {
        if (!tallies[op].calls) continue;
        struct OpRow row = {(enum Op)op, per_iteration(tallies[op], b->n)};
        row.tally.seconds = bench_choose(report, b->op_seconds[op], b->n);
        rows[n_rows++] = row;
    }
    op_rows_sort(rows, n_rows);
    bench_section(report, "its operations, each waited for, slowest first");
    for (int i = 0; i < n_rows; i++) bench_row(report, op_name(rows[i].op), rows[i].tally);
}

/* Nothing where the backend learns no regions. */
static void report_learned(struct BenchReport *report, const struct StepBench *b) {
    char text[128];
    const struct LearnedRegions *learned = &b->learned;
    if (!learned->n_kept) return;
    snprintf(text, sizeof text, "graphs: %d kept, in %.2f MB; %.1f launches an iteration",
             learned->n_kept, 1e-6 * (double)learned->n_bytes,
             (double)learned->n_launches / (double)b->n);
    bench_note(report, text);
}

/* Returns the seconds of an iteration. */
static double report_phases(struct BenchReport *report, struct StepBench *b, enum StepKind kind) {
    const struct Learner *l = &b->learner;
    double whole = 0.0;
    bench_section(report, "%s step: batch %lld x %lld tokens, recompute %s, %d iterations",
                  step_kind_name(kind), (long long)l->batch.capacity,
                  (long long)l->nets.geometry.tokens,
                  config_enum_name("train.recompute", (int)l->config->train.recompute), b->n);
    for (int phase = 0; phase < BENCH_PHASES; phase++) {
        struct OpTally row = per_iteration(b->phases[phase], b->n);
        row.seconds = bench_choose(report, b->seconds[phase], b->n);
        bench_row(report, phase_names[phase], row);
        whole = row.seconds;
    }
    bench_utilisation(report, model_flops(b, kind), whole, 0.47);
    report_learned(report, b);
    return whole;
}

static int64_t planned_bytes(const struct Config *config, struct VideoShape video,
                             enum Dtype act_dtype) {
    struct RankGrid alone = rank_grid_alone();
    struct MemoryPlan plan = memory_plan_make(config, video, &alone, act_dtype);
    return memory_plan_total(&plan);
}

bool bench_fits(const struct Config *config, struct VideoShape video, const struct Backend *be,
                struct Error *err) {
    double need = (double)planned_bytes(config, video, be->act_dtype);
    double have = (double)be->memory_available(be);
    return need < have ||
           error_set(err,
                     "bench: the step needs %.1f GB with train.recompute=%s, this "
                     "machine has %.1f GB; choose another train.recompute, a smaller "
                     "train.micro_batch or clip",
                     1e-9 * need, config_enum_name("train.recompute", (int)config->train.recompute),
                     1e-9 * have);
}

/* What a device says is gone since it had free_before; nothing on a CPU, where no one tells. */
static void report_memory(struct BenchReport *report, const struct Backend *be, int64_t free_before,
                          int64_t planned) {
    char text[96];
    double taken = (double)(free_before - be->memory_available(be));
    snprintf(text, sizeof text, "memory planned: %.2f GB", 1e-9 * (double)planned);
    bench_note(report, text);
    if (taken > 0.0)
        bench_ratio(report, "memory taken / planned", taken / (double)planned, BENCH_AT_MOST, 1.01);
}

/* The first n_kinds kinds of the stage's steps.  Returns the seconds of the first, whole. */
static double bench_kinds(struct BenchReport *report, const struct Backend *be,
                          const struct Config *config, struct VideoShape video, int n_kinds,
                          bool operations) {
    int64_t free_before = be->memory_available(be);
    struct RankGrid alone = rank_grid_alone();
    struct MemoryPlan plan = memory_plan_make(config, video, &alone, be->act_dtype);
    struct StepBench *b = step_bench_create(be, config, video, plan.step);
    double first = 0.0;
    for (int k = 0; k < n_kinds; k++) {
        enum StepKind kind = step_kind_at(config, k);
        measure_kind(b, kind, 2.0 * bench_report_seconds(report));
        double whole = report_phases(report, b, kind);
        if (k == 0) first = whole;
        report_memory(report, be, free_before, memory_plan_total(&plan));
        if (operations) report_operations(report, b);
    }
    step_bench_destroy(b);
    return first;
}

void bench_steps(struct BenchReport *report, const struct Backend *be, const struct Config *config,
                 struct VideoShape video) {
    bool alternates = config->train.stage == STAGE_STAGE2 && config->stage2.student_every > 1;
    bench_kinds(report, be, config, video, alternates ? 2 : 1, true);
}

void bench_policies(struct BenchReport *report, const struct Backend *be,
                    const struct Config *config, struct VideoShape video) {
    static const enum Recompute policies[] = {RECOMPUTE_NONE, RECOMPUTE_KEEP_ATTENTION,
                                              RECOMPUTE_FULL};
    double seconds[3] = {0};
    for (int i = 0; i < 3; i++) {
        struct Config with = *config; /* its strings are borrowed */
        struct Error reason;
        with.train.recompute = policies[i];
        if (bench_fits(&with, video, be, &reason)) {
            seconds[i] = bench_kinds(report, be, &with, video, 1, false);
        } else {
            bench_section(report, "not measured");
            bench_note(report, reason.text);
        }
    }
    if (seconds[1] > 0.0 && seconds[2] > 0.0)
        bench_ratio(report, "full recomputation / keeping attention outputs",
                    seconds[2] / seconds[1], BENCH_AT_LEAST, 1.11);
}
