/* The training steps of a stage on random data: phases and operations. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/meter/backend_meter.h"
#include "philox.h"
#include "train/bench.h"
#include "train/optimizer.h"
#include "train/phase_timer.h"
#include "train/trainer.h"

enum BenchPhase { ZERO, PASS, UPDATE, WHOLE, BENCH_PHASES };
static const char *const phase_names[BENCH_PHASES] = {
    "zero gradients", "pass: upload, noise, forward, losses, backward", "update: norm, AdamW, EMA", "whole iteration"};

enum { MAX_ITERATIONS = 200 };

struct StepBench {
    const struct Config *config;
    struct Backend *meter;
    struct Comm *alone;
    struct Learner learner;
    float *host_video, *host_text;
    int64_t *host_samples;
    int64_t iteration;
    struct {
        int n;
        double seconds[BENCH_PHASES][MAX_ITERATIONS];
        struct OpTally phases[BENCH_PHASES]; /* of all n together */
        double op_seconds[OP_COUNT][MAX_ITERATIONS];
    } measured;
};

static float *random_host(int64_t n_elems) {
    float *host = xmalloc((size_t)n_elems * sizeof *host);
    for (int64_t i = 0; i < n_elems; i++)
        host[i] = (float)(2.0 * philox_uniform(philox(2, (uint32_t)i, 0, 0, 0).word[0]) - 1.0);
    return host;
}

static void step_bench_init(struct StepBench *b, const struct Backend *be,
                            const struct Config *config, struct VideoShape video, int64_t batch,
                            int64_t arena_bytes) {
    *b = (struct StepBench){.config = config,
                            .meter = backend_meter_create(be),
                            .alone = comm_self_create(),
                            .host_video = random_host(batch * video_elems(video, config->model.in_dim)),
                            .host_text = random_host(batch * config->model.text_len *
                                                     config->model.text_dim),
                            .host_samples = xcalloc((size_t)batch * sizeof *b->host_samples)};
    learner_init(&b->learner, config, b->meter, b->alone, video, batch, b->host_text, arena_bytes);
    struct Networks *nets = &b->learner.nets;
    for (int role = 0; role < ROLE_COUNT; role++) {
        if (!nets->plan.present[role]) continue;
        const struct ParamTable *table = networks_table(nets, (enum Role)role);
        float *host = xmalloc((size_t)table->n_elems * sizeof *host);
        params_initialise(table, 1, host);
        weights_upload(&nets->weights[role], host);
        free(host);
    }
}

static void step_bench_free(struct StepBench *b) {
    learner_free(&b->learner);
    free(b->host_samples);
    free(b->host_text);
    free(b->host_video);
    b->alone->destroy(b->alone);
    b->meter->destroy(b->meter);
}

/* Books what has happened since the last call on `phase`. */
static void book(struct StepBench *b, enum BenchPhase phase, struct OpTally *last,
                 double *last_time) {
    struct OpTally now = op_tally_total(backend_meter_tallies(b->meter));
    double time = wall_seconds();
    struct OpTally *sum = &b->measured.phases[phase];
    b->measured.seconds[phase][b->measured.n] = time - *last_time;
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
    struct LearnerPass pass = {.iteration = b->iteration,
                               .batch = l->batch.capacity,
                               .last = true,
                               .host_video = b->host_video,
                               .host_text = b->host_text,
                               .host_samples = b->host_samples};
    const struct OpTally *ops = backend_meter_tallies(b->meter);
    struct OpTally last = op_tally_total(ops), before = last;
    for (int op = 0; op < OP_COUNT; op++)
        b->measured.op_seconds[op][b->measured.n] = -ops[op].seconds;
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
    for (int op = 0; op < OP_COUNT; op++)
        b->measured.op_seconds[op][b->measured.n] += ops[op].seconds;
    b->iteration++;
    b->measured.n++;
}

static struct OpTally per_iteration(struct OpTally sum, int n) {
    return (struct OpTally){sum.calls / n, sum.seconds / n, sum.flops / n, sum.bytes / n};
}

struct OpRow {
    enum Op op;
    struct OpTally tally;
};

static int slower_first(const void *a, const void *b) {
    double x = ((const struct OpRow *)a)->tally.seconds,
           y = ((const struct OpRow *)b)->tally.seconds;
    return (x < y) - (x > y);
}

static void report_operations(struct BenchReport *report, struct StepBench *b) {
    const struct OpTally *tallies = backend_meter_tallies(b->meter);
    struct OpRow rows[OP_COUNT];
    int n = b->measured.n, n_rows = 0;
    for (int op = 0; op < OP_COUNT; op++) {
        if (!tallies[op].calls) continue;
        struct OpRow row = {(enum Op)op, per_iteration(tallies[op], n)};
        row.tally.seconds = bench_choose(report, b->measured.op_seconds[op], n);
        rows[n_rows++] = row;
    }
    qsort(rows, (size_t)n_rows, sizeof *rows, slower_first);
    bench_section(report, "its operations, slowest first");
    for (int i = 0; i < n_rows; i++) bench_row(report, op_name(rows[i].op), rows[i].tally);
}

static void report_step(struct BenchReport *report, struct StepBench *b, enum StepKind kind) {
    int n = b->measured.n;
    bench_section(report, "%s step: batch %lld x %lld tokens, %d iterations", step_kind_name(kind),
                  (long long)b->learner.batch.capacity, (long long)b->learner.nets.geometry.tokens, n);
    for (int phase = 0; phase < BENCH_PHASES; phase++) {
        struct OpTally row = per_iteration(b->measured.phases[phase], n);
        row.seconds = bench_choose(report, b->measured.seconds[phase], n);
        bench_row(report, phase_names[phase], row);
    }
    report_operations(report, b);
}

static void bench_kind(struct BenchReport *report, struct StepBench *b, enum StepKind kind) {
    enum { WARM_UP = 2, AT_LEAST = 3 };
    for (int i = 0; i < WARM_UP; i++) iterate(b, kind);
    memset(&b->measured, 0, sizeof b->measured);
    backend_meter_reset(b->meter);
    double begin = wall_seconds();
    while (
        b->measured.n < MAX_ITERATIONS &&
        (b->measured.n < AT_LEAST || wall_seconds() - begin < 4.0 * bench_report_seconds(report)))
        iterate(b, kind);
    report_step(report, b, kind);
}

bool bench_fits(const struct Config *config, struct VideoShape video, enum Dtype act_dtype,
                struct Error *err) {
    struct MemoryPlan plan = memory_plan_make(config, video, config->train.micro_batch, act_dtype);
    double need = (double)memory_plan_total(&plan);
    double have = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    return need < have || error_set(err,
                                    "bench: the step needs %.1f GB, this machine has %.1f GB; "
                                    "choose a smaller train.micro_batch or clip",
                                    1e-9 * need, 1e-9 * have);
}

void bench_steps(struct BenchReport *report, const struct Backend *be, const struct Config *config,
                 struct VideoShape video) {
    int64_t batch = config->train.micro_batch;
    struct MemoryPlan plan = memory_plan_make(config, video, batch, be->act_dtype);
    struct StepBench *b = xmalloc(sizeof *b);
    step_bench_init(b, be, config, video, batch, plan.step);
    bench_kind(report, b, step_kind_at(config, 0));
    if (config->train.stage == STAGE_STAGE2 && config->stage2.student_every > 1)
        bench_kind(report, b, step_kind_at(config, 1));
    step_bench_free(b);
    free(b);
}
