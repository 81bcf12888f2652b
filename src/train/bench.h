/* `tmd bench`: how fast this machine is, and what share of it the operations, a block and the
 * training steps reach.
 *
 * Every measurement becomes one row: seconds (the median after a warm-up, unless asked otherwise),
 * flops and bytes as op_cost.h counts them, and from these GFLOP/s, the share of the machine's
 * measured peak, GB/s, and how near the row comes to its floor, the time that it cannot go below:
 *
 *     floor = max(flops / measured peak, bytes / measured copy bandwidth)
 *     share = floor / seconds
 *
 * A comparison of two measurements (an algorithm with another, a block with its parts) is a ratio,
 * with the goal that the CUDA backend has for it.  Rows and ratios are printed at once and kept for
 * the JSON file. */
#ifndef TMD_BENCH_H
#define TMD_BENCH_H

#include "kernels/op_cost.h"
#include "train/networks.h"

/* The same device four times: what most rows are about; products by the library's first suggestion
 * instead of the fastest measured; libraries bound to give the same bits; attention by the best of
 * all plans that the library has.  On the CPU they do not differ. */
struct BenchBackends {
    struct Backend *be, *first_suggestion, *deterministic, *every_plan;
};

/* What operations are measured at: a model's layers over a batch of latents. */
struct BenchSize {
    const struct ModelConfig *model;
    int64_t batch;
    struct VideoShape video;
};
/* Of a sample. */
int64_t bench_tokens(const struct BenchSize *size);

/* ---- the report */

struct BenchReport;

/* `be`: what is measured.  `seconds`: how long each measurement goes on at least.  `best`: its
 * fastest run counts, not the median; on a machine that does other work the median is mostly that
 * work. nominal_peak: flops per second that MFU is told of; 0: the measured peak. */
struct BenchReport *bench_report_create(const struct Backend *be, double seconds, bool best,
                                        double nominal_peak);
void bench_report_destroy(struct BenchReport *report);
double bench_report_seconds(const struct BenchReport *report);
/* What shares are told of; before they are set there are none. */
void bench_report_set_peak(struct BenchReport *report, double flops_per_second);
void bench_report_set_bandwidth(struct BenchReport *report, double bytes_per_second);

/* Rows that follow belong to this section. */
void bench_section(struct BenchReport *report, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* A row; the numbers are those of all `calls` together. */
void bench_row(struct BenchReport *report, const char *name, struct OpTally tally);
/* floor / seconds; 0 while there is no peak and no bandwidth. */
double bench_floor_share(const struct BenchReport *report, struct OpTally tally);

enum BenchGoal { BENCH_AT_LEAST, BENCH_AT_MOST };
void bench_ratio(struct BenchReport *report, const char *name, double ratio, enum BenchGoal goal,
                 double bound);
/* Model flops utilisation as a ratio: of the nominal peak, which the row names. */
void bench_utilisation(struct BenchReport *report, double model_flops, double seconds, double goal);
/* A line of words, why something is not measured. */
void bench_note(struct BenchReport *report, const char *text);

/* {"device", "backend", "precision", "threads", "of": "median" or "best", "peak_flops",
 * "bandwidth", "nominal_peak_flops", "sections": [{"name", "rows": [{"name", "calls", "seconds",
 * "flops", "bytes", "floor_share"}], "ratios": [{"name", "ratio", "at_least" or "at_most"}],
 * "notes": [...]}]} */
bool bench_report_write(const struct BenchReport *report, const char *path, struct Error *err);

/* ---- measuring */

/* One run of what is measured, on `be`. */
typedef void (*BenchRun)(const struct Backend *be, void *context);

/* One run's cost, and its wall seconds: after a run to warm up, at least three samples and until
 * the report's `seconds` have gone by; the median of these, or the least.  Where a run is shorter
 * than the clock and the wait for a device allow to tell, a sample is several runs on end. */
struct OpTally bench_measure(const struct BenchReport *report, const struct Backend *be,
                             BenchRun run, void *context);
/* The least of these in any case: a peak is what was reached once. */
struct OpTally bench_measure_least(const struct BenchReport *report, const struct Backend *be,
                                   BenchRun run, void *context);
/* The same choice among n > 0 measured values, which it sorts. */
double bench_choose(const struct BenchReport *report, double *values, int n);

/* Operands in a backend's memory, freed together. */
enum { BENCH_MAX_OPERANDS = 24 };
struct BenchOperands {
    const struct Backend *be;
    void *items[BENCH_MAX_OPERANDS];
    int n_items;
};
/* n elements from N(0, 1): the power that a product draws, and so its clock, depends on its values.
 */
float *bench_floats(struct BenchOperands *operands, int64_t n_elems);
Act *bench_acts(struct BenchOperands *operands, int64_t n_elems);
/* n zeroed elements. */
float *bench_zero_floats(struct BenchOperands *operands, int64_t n_elems);
void bench_operands_free(struct BenchOperands *operands);

/* Small normal weights, drawn by the backend itself: a host takes minutes for a thousand million.
 */
void bench_random_weights(struct Weights *weights);

/* ---- what is measured */

/* What sets peak and bandwidth.  The CPU's peak: fused multiply-adds of all threads, from
 * registers. A device's: a large square matrix product, `side` on each side. */
void bench_machine(struct BenchReport *report, const struct Backend *be, int64_t side);

/* Matrix products as linear layers need them, y = x W^T, dx = dy W, dW += dy^T x. */
void bench_squares(struct BenchReport *report, const struct Backend *be);
/* y = x W^T of that shape. */
struct OpTally bench_product(struct BenchReport *report, const struct Backend *be,
                             struct LinearShape shape);
/* All products of a block, forward and backward, with the epilogues that the block gives them and
 * without, and without them by the library's first suggestion.  Returns the seconds of all of them,
 * bare. */
double bench_layers(struct BenchReport *report, const struct BenchBackends *backends,
                    const struct BenchSize *size);

/* A block's attentions, to itself and to text, forward and backward, and how near they come to the
 * best of all plans; then deterministic.  Returns the seconds of the four. */
double bench_attention(struct BenchReport *report, const struct BenchBackends *backends,
                       const struct BenchSize *size);

/* The operations that only pass over memory: a block's, and the optimizer's. */
void bench_elementwise(struct BenchReport *report, const struct Backend *be,
                       const struct BenchSize *size);

/* One block, forward and backward with parameter gradients.  part_seconds: of its products and
 * attentions, measured bare. */
void bench_block(struct BenchReport *report, const struct Backend *be, const struct BenchSize *size,
                 double part_seconds);

/* An error if the configuration's step at this shape does not fit this machine's memory. */
bool bench_fits(const struct Config *config, struct VideoShape video, const struct Backend *be,
                struct Error *err);

/* Every kind of step of the configuration's stage on random data, with random weights: its phases,
 * its utilisation, and its operations by time. */
void bench_steps(struct BenchReport *report, const struct Backend *be, const struct Config *config,
                 struct VideoShape video);
/* The stage's first kind of step with each value of train.recompute for which there is memory. */
void bench_policies(struct BenchReport *report, const struct Backend *be,
                    const struct Config *config, struct VideoShape video);

struct BenchCheckpoint {
    const char *folder; /* a folder of its own in this one is written to, and removed */
    int64_t mib;        /* of weights, rounded up to blocks of 64 */
    int64_t n_shards, n_ranks; /* that write, and that read */
    int64_t zstd_level;
};
/* Saving and loading of a sharded checkpoint, against a plain read of its files. */
bool bench_checkpoint(struct BenchReport *report, const struct Backend *be,
                      const struct BenchCheckpoint *how, struct Error *err);

int cmd_bench(int argc, char **argv);

#endif
