/* Timing, and operands to time with. */
#include "kernels/meter/backend_meter.h"
#include "train/bench.h"
#include "train/phase_timer.h"

enum {
    AT_LEAST = 3,
    AT_MOST = 1000,
    MOST_RUNS = 1000 /* of a sample */
};
/* Seconds of a sample: so long that starting and awaiting it, some ten microseconds, do not count.
 */
static const double sample_seconds = 2e-3;

static double seconds_of(const struct Backend *be, BenchRun run, void *context, int n_runs) {
    double start = wall_seconds();
    for (int i = 0; i < n_runs; i++) run(be, context);
    be->finish(be);
    return wall_seconds() - start;
}

static int runs_of_a_sample(double seconds) {
    if (seconds * MOST_RUNS < sample_seconds) return MOST_RUNS;
    return seconds < sample_seconds ? 1 + (int)(sample_seconds / seconds) : 1;
}

/* Seconds of each sample's runs; returns their number. */
static int take_samples(const struct BenchReport *report, const struct Backend *be, BenchRun run,
                        void *context, double samples[AT_MOST]) {
    int n_runs = runs_of_a_sample(seconds_of(be, run, context, 1)), n = 0;
    double begin = wall_seconds();
    while (n < AT_MOST && (n < AT_LEAST || wall_seconds() - begin < bench_report_seconds(report)))
        samples[n++] = seconds_of(be, run, context, n_runs) / n_runs;
    return n;
}

/* What one run costs; it is also what warms up. */
static struct OpTally cost_of(const struct Backend *be, BenchRun run, void *context) {
    struct Backend *meter = backend_meter_create(be);
    run(meter, context);
    struct OpTally cost = op_tally_total(backend_meter_tallies(meter));
    meter->destroy(meter);
    cost.calls = 1;
    return cost;
}

struct OpTally bench_measure(const struct BenchReport *report, const struct Backend *be,
                             BenchRun run, void *context) {
    double samples[AT_MOST];
    struct OpTally tally = cost_of(be, run, context);
    int n = take_samples(report, be, run, context, samples);
    tally.seconds = bench_choose(report, samples, n);
    return tally;
}

struct OpTally bench_measure_least(const struct BenchReport *report, const struct Backend *be,
                                   BenchRun run, void *context) {
    double samples[AT_MOST];
    struct OpTally tally = cost_of(be, run, context);
    int n = take_samples(report, be, run, context, samples);
    tally.seconds = samples[0];
    for (int i = 1; i < n; i++)
        if (samples[i] < tally.seconds) tally.seconds = samples[i];
    return tally;
}

static void *take(struct BenchOperands *operands, int64_t n_bytes) {
    TMD_CHECK(operands->n_items < BENCH_MAX_OPERANDS, "more than %d operands", BENCH_MAX_OPERANDS);
    void *memory = operands->be->memory_alloc(operands->be, n_bytes);
    operands->items[operands->n_items++] = memory;
    return memory;
}

float *bench_zero_floats(struct BenchOperands *operands, int64_t n_elems) {
    return take(operands, n_elems * (int64_t)sizeof(float));
}

/* Each operand has noise of its own. */
static void fill(struct BenchOperands *operands, float *floats, int64_t n_elems) {
    const struct Backend *be = operands->be;
    be->normal_fill(be, floats, 1, (uint64_t)operands->n_items, 0, 1, n_elems);
}

float *bench_floats(struct BenchOperands *operands, int64_t n_elems) {
    float *floats = bench_zero_floats(operands, n_elems);
    fill(operands, floats, n_elems);
    return floats;
}

Act *bench_acts(struct BenchOperands *operands, int64_t n_elems) {
    const struct Backend *be = operands->be;
    Act *acts = take(operands, n_elems * dtype_bytes(be->act_dtype));
    float *floats = be->memory_alloc(be, n_elems * (int64_t)sizeof *floats);
    fill(operands, floats, n_elems);
    be->act_from_f32(be, acts, floats, n_elems);
    be->memory_free(be, floats);
    return acts;
}

void bench_operands_free(struct BenchOperands *operands) {
    for (int i = 0; i < operands->n_items; i++)
        operands->be->memory_free(operands->be, operands->items[i]);
    operands->n_items = 0;
}

static void fill_small(const struct Backend *be, float *values, int64_t n_elems) {
    be->normal_fill(be, values, 1, 0, 0, 1, n_elems);
    be->scale_f32(be, values, 0.02, n_elems);
}

void bench_random_weights(struct Weights *weights) {
    const struct Backend *be = weights->be;
    fill_small(be, weights->master, weights->n_elems);
    if (weights->arrays & WEIGHTS_MOMENTS) {
        weights_refresh(weights);
        return;
    }
    for (int unit = 0; unit < weights->table->n_units; unit++) {
        const struct PieceSlice *piece = &weights->pieces[unit][PIECE_ACT];
        float *values = be->memory_alloc(be, piece->n_slice * (int64_t)sizeof *values);
        fill_small(be, values, piece->n_slice);
        be->act_from_f32(be, act_at(be, weights->compute, piece->at), values, piece->n_slice);
        be->memory_free(be, values);
    }
}

int64_t bench_tokens(const struct BenchSize *size) {
    const int64_t *patch = size->model->patch_size;
    struct VideoShape v = size->video;
    return (v.frames / patch[0]) * (v.height / patch[1]) * (v.width / patch[2]);
}
