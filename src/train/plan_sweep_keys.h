/* What a sweep goes over: keys of the configuration with several values each, in every combination,
 * and numbers of GPUs.
 *
 *     --sweep parallel.shard=none,full,parallel.sequence=1,2,4     2 x 3 combinations
 *     --gpus 8,64,512
 *
 * Commas part values; one with "=" begins the next key.  So neither needs quotes in a shell, and a
 * value can hold neither comma nor "=": keys whose values are lists cannot be swept. */
#ifndef TMD_PLAN_SWEEP_KEYS_H
#define TMD_PLAN_SWEEP_KEYS_H

#include "train/config.h"

enum { SWEEP_MAX_KEYS = 8, SWEEP_MAX_VALUES = 16, SWEEP_MAX_COMBINATIONS = 64 };

struct SweepKeys {
    int n_keys, n_combinations; /* without keys: the one combination that changes nothing */
    struct SweepKey {
        int n_values;
        char *assignments[SWEEP_MAX_VALUES]; /* "key=value" */
    } keys[SWEEP_MAX_KEYS];
};

/* `text` may be NULL, for no keys.  Whether a key exists and takes its values is not looked at.
 * sweep_keys_free is needed in either case. */
bool sweep_keys_parse(struct SweepKeys *keys, const char *text, struct Error *err);
void sweep_keys_free(struct SweepKeys *keys);

/* Key k's assignment in combination i; the last key's values change fastest. */
const char *sweep_assignment(const struct SweepKeys *keys, int i, int k);

/* "parallel.shard=full parallel.sequence=2", or "as configured"; the caller frees it. */
char *sweep_combination_name(const struct SweepKeys *keys, int i);

/* Overrides the configuration with combination i. */
bool sweep_combination_apply(const struct SweepKeys *keys, int i, struct Config *config,
                             struct Error *err);

enum { SWEEP_MAX_COUNTS = 16, SWEEP_MAX_GPUS = 1000000 };

struct SweepCounts {
    int n, gpus[SWEEP_MAX_COUNTS]; /* in increasing order */
};

bool sweep_counts_parse(struct SweepCounts *counts, const char *text, struct Error *err);

#endif
