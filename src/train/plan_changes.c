/* Which keys would help: each is changed, and the whole planned anew. */
#include <stdio.h>
#include <stdlib.h>

#include "train/plan_run.h"

static bool same(const struct TrainConfig *a, const struct TrainConfig *b) {
    return a->recompute == b->recompute && a->micro_batch == b->micro_batch;
}

/* "key=value", for each key that differs. */
static void name_change(const struct TrainConfig *before, const struct TrainConfig *after,
                        char key[PLAN_CHANGE_BYTES]) {
    int used = 0;
    if (after->recompute != before->recompute)
        used = snprintf(key, PLAN_CHANGE_BYTES, "train.recompute=%s ",
                        config_enum_name("train.recompute", (int)after->recompute));
    if (after->micro_batch != before->micro_batch)
        used += snprintf(key + used, (size_t)(PLAN_CHANGE_BYTES - used), "train.micro_batch=%lld ",
                         (long long)after->micro_batch);
    key[used - 1] = '\0'; /* the last blank */
}

/* Whether it helps. */
static bool try_change(const struct Plan *before, const struct TrainConfig *train,
                       struct PlanChange *change) {
    struct Config config = *before->config; /* its strings are borrowed */
    struct Plan after;
    struct Error err;
    double seconds = plan_run_seconds(before);
    config.train = *train;
    if (!plan_make(&after, &config, &before->target, &err) || !plan_fits(&after)) return false;
    change->seconds_saved = seconds - plan_run_seconds(&after);
    change->bytes_saved = plan_memory_total(&before->memory) - plan_memory_total(&after.memory);
    name_change(&before->config->train, train, change->key);
    return !plan_fits(before) || change->seconds_saved >= 0.01 * seconds;
}

static int fastest_first(const void *a, const void *b) {
    double x = ((const struct PlanChange *)a)->seconds_saved;
    double y = ((const struct PlanChange *)b)->seconds_saved;
    return (x < y) - (x > y);
}

int plan_changes(const struct Plan *plan, struct PlanChange changes[PLAN_MAX_CHANGES]) {
    static const enum Recompute policies[] = {RECOMPUTE_NONE, RECOMPUTE_KEEP_ATTENTION,
                                              RECOMPUTE_FULL};
    const struct TrainConfig *now = &plan->config->train;
    const int64_t batches[] = {now->micro_batch, 2 * now->micro_batch, 1};
    int n_batches = now->micro_batch == 1 ? 2 : 3, n = 0;
    for (int p = 0; p < 3; p++) {
        for (int b = 0; b < n_batches; b++) {
            struct TrainConfig train = *now;
            train.recompute = policies[p];
            train.micro_batch = batches[b];
            bool possible = batches[b] <= plan->share && batches[b] <= STUDENT_MAX_BATCH;
            if (possible && !same(&train, now) && try_change(plan, &train, &changes[n])) n++;
        }
    }
    qsort(changes, (size_t)n, sizeof *changes, fastest_first);
    return n;
}
