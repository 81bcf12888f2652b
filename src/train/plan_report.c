/* A plan as a table on the terminal. */
#include <stdlib.h>

#include "train/plan_run.h"

static const double GB = 1e-9, TERA = 1e-12, EXA = 1e-18, MS = 1e3;
static const double HOURS = 1.0 / 3600.0, DAYS = 1.0 / 86400.0;

/* ---- memory */

static void print_role(const struct PlanMemory *memory, enum Role role, FILE *out) {
    if (!plan_memory_role(memory, role)) return;
    fprintf(out, "  %-28s", role_name(role));
    for (int part = 0; part < PLAN_PARTS; part++) {
        int64_t n_bytes = memory->weights[role][part];
        if (n_bytes)
            fprintf(out, " %9.2f", GB * (double)n_bytes);
        else
            fprintf(out, " %9s", "-");
    }
    fprintf(out, " %9.2f\n", GB * (double)plan_memory_role(memory, role));
}

static void print_rest(const char *name, int64_t n_bytes, FILE *out) {
    fprintf(out, "  %-28s %*s %9.2f\n", name, 10 * PLAN_PARTS - 1, "", GB * (double)n_bytes);
}

static void print_memory(const struct Plan *plan, FILE *out) {
    const struct PlanMemory *memory = &plan->memory;
    double total = (double)plan_memory_total(memory), there = plan->target.machine->memory_bytes;
    fprintf(out, "\nmemory per GPU, GB            ");
    for (int part = 0; part < PLAN_PARTS; part++)
        fprintf(out, " %9s", plan_part_name((enum PlanPart)part));
    fprintf(out, " %9s\n", "together");
    for (int role = 0; role < ROLE_COUNT; role++) print_role(memory, (enum Role)role, out);
    if (memory->units) print_rest("units, whole", memory->units, out);
    print_rest("batch, and its tables", memory->batch, out);
    print_rest("a step's arena at its peak", memory->step, out);
    print_rest("libraries (assumed)", memory->reserved, out);
    print_rest("together", plan_memory_total(memory), out);
    fprintf(out, "  %.2f of %.2f GB, %.1f %%: %s\n", GB * total, GB * there, 100.0 * total / there,
            plan_fits(plan) ? "fits" : "DOES NOT FIT");
    fprintf(out, "  and %.2f GB of the host's memory %s, for the copy that a checkpoint is written from\n",
            GB * (double)memory->host,
            plan->config->parallel.shard == SHARD_NONE ? "at rank 0" : "per GPU");
}

/* ---- steps */

static void print_heads(FILE *out) {
    fprintf(out, "\n%-30s %7s %11s %8s %11s %8s %10s\n", "per GPU and iteration", "calls", "ms",
            "of time", "TFLOP", "of peak", "GB moved");
}

/* `share`: of the iteration's seconds. */
static void print_tally(const struct Plan *plan, const char *name, struct OpTally t, double share,
                        FILE *out) {
    double peak = plan->target.machine->flops;
    fprintf(out, "  %-28s %7lld %11.3f %6.1f %%", name, (long long)t.calls, MS * t.seconds,
            100.0 * share);
    if (t.flops > 0.0)
        fprintf(out, " %11.3f %6.1f %%", TERA * t.flops, 100.0 * t.flops / t.seconds / peak);
    else if (t.bytes > 0.0)
        fprintf(out, " %11s %8s", "", "");
    if (t.bytes > 0.0) fprintf(out, " %10.3f", GB * t.bytes);
    fprintf(out, "\n");
}

static void print_operations(const struct Plan *plan, const struct PlanStep *step, FILE *out) {
    static const double LEAST_SHARE = 0.01;
    struct OpRow rows[OP_COUNT];
    struct OpTally rest = {0};
    for (int op = 0; op < OP_COUNT; op++) rows[op] = (struct OpRow){(enum Op)op, step->ops[op]};
    op_rows_sort(rows, OP_COUNT);
    for (int i = 0; i < OP_COUNT; i++) {
        double share = rows[i].tally.seconds / step->seconds;
        if (share >= LEAST_SHARE)
            print_tally(plan, op_name(rows[i].op), rows[i].tally, share, out);
        else
            plan_tally_add(&rest, rows[i].tally, 1);
    }
    print_tally(plan, "all others", rest, rest.seconds / step->seconds, out);
}

static void print_traffic(const struct PlanTraffic *traffic, FILE *out) {
    fprintf(
        out,
        " between GPUs: %lld messages of %.3f GB together; each GPU sends %.3f GB in %.3f ms, "
        "of which %.3f ms are waited for\n",
        (long long)traffic->messages, GB * traffic->buffer_bytes, GB * traffic->sent_bytes,
        MS * traffic->link_seconds, MS * traffic->exposed_seconds);
}

static void print_step(const struct Plan *plan, int i, FILE *out) {
    const struct PlanStep *step = &plan->steps[i];
    print_heads(out);
    fprintf(out, " %s step: %lld of the %lld iterations\n", step_kind_name(step->kind),
            (long long)plan->n_iterations[i], (long long)plan->config->train.iterations);
    for (int phase = 0; phase < PLAN_PHASES; phase++)
        if (step->phases[phase].seconds > 1e-9 * step->seconds)
            print_tally(plan, plan_phase_name((enum PlanPhase)phase), step->phases[phase],
                        step->phases[phase].seconds / step->seconds, out);
    struct OpTally whole = op_tally_total(step->ops);
    whole.seconds = step->seconds;
    print_tally(plan, "iteration", whole, 1.0, out);
    fprintf(out, " its operations\n");
    print_operations(plan, step, out);
    if (step->traffic.messages) print_traffic(&step->traffic, out);
}

/* ---- the run */

static void print_time(const struct Plan *plan, FILE *out) {
    const struct Config *config = plan->config;
    struct PlanTotals t = plan_totals(plan);
    double n_gpus = plan->target.n_gpus, peak = t.whole.seconds * plan->target.machine->flops;
    double run = plan_run_seconds(plan);
    fprintf(out, "\ntime\n");
    fprintf(out, "  iteration      %10.4g s on average\n",
            t.whole.seconds / (double)config->train.iterations);
    fprintf(out, "  model flops    %10.4g EFLOP on all GPUs, %.1f %% of their peak (MFU)\n",
            EXA * n_gpus * t.model_flops, 100.0 * plan_mfu(plan));
    fprintf(out, "  hardware flops %10.4g EFLOP on all GPUs, %.1f %% of their peak\n",
            EXA * n_gpus * t.whole.flops, 100.0 * t.whole.flops / peak);
    if (plan->preparation_seconds > 0.0)
        fprintf(out, "  before it      %10.4g hours in which the teacher makes %lld pairs\n",
                HOURS * plan->preparation_seconds, (long long)config->kd.pairs);
    fprintf(out, "  run            %10.4g hours = %.4g days, %.4g GPU-hours\n", HOURS * run,
            DAYS * run, HOURS * n_gpus * run);
}

/* ---- limits */

/* A resource, and the share of it that the plan uses on average. */
struct Limit {
    const char *name, *of;
    double share;
};

static int closest_first(const void *a, const void *b) {
    double x = ((const struct Limit *)a)->share, y = ((const struct Limit *)b)->share;
    return (x < y) - (x > y);
}

static void print_changes(const struct Plan *plan, FILE *out) {
    struct PlanChange changes[PLAN_MAX_CHANGES];
    int n = plan_changes(plan, changes);
    for (int i = 0; i < n; i++)
        fprintf(out, "  %s would fit: %+.2f GB, %+.1f hours\n", changes[i].key,
                -GB * (double)changes[i].bytes_saved, -HOURS * changes[i].seconds_saved);
    if (n > 0) return;
    if (plan_fits(plan)) {
        fprintf(out, "  no change of train.recompute or train.micro_batch saves time and fits\n");
        return;
    }
    int64_t networks = 0;
    for (int role = 0; role < ROLE_COUNT; role++)
        networks += plan_memory_role(&plan->memory, (enum Role)role);
    fprintf(out,
            "  no change of train.recompute or train.micro_batch makes it fit: the networks, "
            "which every GPU holds whole, take %.1f GB\n",
            GB * (double)networks);
}

static void print_limits(const struct Plan *plan, FILE *out) {
    const struct Machine *m = plan->target.machine;
    struct PlanTotals t = plan_totals(plan);
    struct Limit limits[] = {
        {"memory", "the GPU's", (double)plan_memory_total(&plan->memory) / m->memory_bytes},
        {"arithmetic", "the peak", t.whole.flops / (t.whole.seconds * m->flops)},
        {"bandwidth", "the memory's", t.whole.bytes / (t.whole.seconds * m->memory_bandwidth)},
        {"links", "the time", t.link_seconds / t.whole.seconds}};
    const int n = sizeof limits / sizeof *limits;
    qsort(limits, (size_t)n, sizeof *limits, closest_first);
    fprintf(out, "\nlimits, the closest first\n");
    for (int i = 0; i < n; i++)
        fprintf(out, "  %-12s %5.1f %% of %s\n", limits[i].name, 100.0 * limits[i].share,
                limits[i].of);
    fprintf(out, "  most of the time, %.1f %%, goes into %s\n",
            100.0 * t.ops[t.slowest].seconds / t.whole.seconds, op_name(t.slowest));
    print_changes(plan, out);
}

void plan_print(const struct Plan *plan, FILE *out) {
    print_memory(plan, out);
    for (int i = 0; i < plan->n_kinds; i++) print_step(plan, i, out);
    print_time(plan, out);
    print_limits(plan, out);
}
