/* `tmd bench`: how fast this machine is, and what share of it the operations, a block and the
 * training steps reach.
 *
 * Every measurement becomes one row: seconds (the median after a warm-up, unless asked otherwise),
 * flops and bytes as op_cost.h counts them, and from these GFLOP/s, the share of the machine's
 * measured peak, and GB/s.  Rows are printed as they come and kept for the JSON file. */
#ifndef TMD_BENCH_H
#define TMD_BENCH_H

#include "kernels/op_cost.h"
#include "train/networks.h"

struct BenchReport;

/* `be`: what is measured; its work is waited for.  `seconds`: how long each measurement goes on at least.  `best`: its fastest run counts, not the
 * median; on a machine that does other work the median is mostly that work. */
struct BenchReport *bench_report_create(const struct Backend *be, double seconds, bool best);
void bench_report_destroy(struct BenchReport *report);
double bench_report_seconds(const struct BenchReport *report);
/* What shares are told of; before it is set there are none. */
void bench_report_set_peak(struct BenchReport *report, double flops_per_second);

/* Rows that follow belong to this section. */
void bench_section(struct BenchReport *report, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
/* A row; the numbers are those of all `calls` together. */
void bench_row(struct BenchReport *report, const char *name, struct OpTally tally);

/* {"backend", "precision", "threads", "of": "median" or "best", "peak_flops", "sections": [{"name", "rows": [{"name",
 * "calls", "seconds", "flops", "bytes"}]}]} */
bool bench_report_write(const struct BenchReport *report, const char *path, struct Error *err);

/* Wall seconds of run(context): one call to warm up, then at least three and until the report's
 * `seconds` have gone by; the median of these, or the least. */
double bench_time(const struct BenchReport *report, void (*run)(void *context), void *context);
/* The least of these in any case: a peak is what was reached once. */
double bench_least_time(const struct BenchReport *report, void (*run)(void *context),
                        void *context);
/* The same choice among n > 0 measured values, which it sorts. */
double bench_choose(const struct BenchReport *report, double *values, int n);

/* What sets the peak, and copying memory.  The CPU's peak: fused multiply-adds of all threads, from
 * registers.  A device's: its largest matrix product. */
void bench_machine(struct BenchReport *report, const struct Backend *be);
/* Seconds and cost of y = x W^T of that shape. */
struct OpTally bench_product(struct BenchReport *report, const struct Backend *be,
                             struct LinearShape shape);

/* Matrix products as linear layers need them, y = x W^T, dx = dy W, dW = dy^T x: squares from 512
 * to 2048 and, where there is a model, its own layers at `batch` samples of `video`. */
void bench_gemm(struct BenchReport *report, const struct Backend *be,
                const struct ModelConfig *model, int64_t batch, struct VideoShape video);

/* One block, forward and backward with parameter gradients. */
void bench_block(struct BenchReport *report, const struct Backend *be,
                 const struct ModelConfig *model, int64_t batch, struct VideoShape video);

/* An error if the configuration's step at this shape does not fit this machine's memory. */
bool bench_fits(const struct Config *config, struct VideoShape video, enum Dtype act_dtype,
                struct Error *err);

/* Every kind of step of the configuration's stage on random data, with fresh weights: its phases,
 * and its operations by time. */
void bench_steps(struct BenchReport *report, const struct Backend *be, const struct Config *config,
                 struct VideoShape video);

int cmd_bench(int argc, char **argv);

#endif
