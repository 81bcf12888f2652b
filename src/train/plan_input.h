/* What a plan starts from: the flags of `tmd plan`, the tables of a machine and a network, a
 * configuration with its overrides, the shape of its videos. */
#ifndef TMD_PLAN_INPUT_H
#define TMD_PLAN_INPUT_H

#include "args.h"
#include "train/plan_run.h"

struct PlanFlags {
    const char *gpus, *sweep, *scale; /* plan_sweep_keys.h; sweep may be NULL */
    const char *gpu, *network, *tables;
    int64_t frames, height, width; /* of latents; 0: not given */
    const char *json, *png;        /* paths; NULL: not given */
};

/* A name stands for TABLES/gpu/NAME.yaml or TABLES/network/NAME.yaml, what looks like a path for
 * itself.  Errors name the flag. */
bool plan_tables_load(const struct PlanFlags *flags, struct Machine *machine,
                      struct Network *network, struct Error *err);

/* Operands are paths of configurations and overrides that hold for all of them. */
bool plan_is_override(const char *operand);

/* The file at `path` and the overrides.  `config` is initialised and freed by the caller; whether
 * its keys go together is config_check's to say. */
bool plan_config_read(struct Config *config, const char *path, const struct Operands *operands,
                      struct Error *err);

/* The shape of the data's videos where all files are there, else that of 81 frames of 480 x 832;
 * flags go first.  *origin: a static text that says which it was.  Fails for data that is damaged
 * or not for these networks. */
bool plan_shape_find(const struct PlanFlags *flags, const struct Config *config,
                     struct VideoShape *video, const char **origin, struct Error *err);

/* "latents of 16 x 21 x 60 x 104, 32760 tokens (ORIGIN)" */
void plan_shape_print(const struct Config *config, struct VideoShape video, const char *origin,
                      FILE *out);

#endif
