/* What a run is: every number that a user can choose, in one struct.
 *
 * The table in config_keys.c names each field (`section.key`), with type, range, default and help; it
 * drives parsing, overrides, validation, printing and the reference page.  Defaults are those of the
 * paper's Table 7 for Wan2.1 1.3B (arXiv 2601.09881). */
#ifndef TMD_CONFIG_H
#define TMD_CONFIG_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "error.h"
#include "kernels/backend_open.h"
#include "model/model_config.h"

enum Stage { STAGE_TEACHER, STAGE_KD, STAGE_STAGE1, STAGE_STAGE2 };
enum Stage1Method { STAGE1_MEANFLOW, STAGE1_TM };
enum Recompute { RECOMPUTE_NONE, RECOMPUTE_FULL, RECOMPUTE_KEEP_ATTENTION };
enum Schedule { SCHEDULE_CONSTANT, SCHEDULE_COSINE };
enum Solver { SOLVER_EULER };

enum { CONFIG_MAX_LIST = 64 };

struct StringList {
    char *items[CONFIG_MAX_LIST];
    int n;
};

/* Flow matching from scratch: x_t = (1 - t) x + t x1, loss |v - (x1 - x)|^2, t = shift(U, t_shift). */
struct TeacherConfig {
    double t_shift, text_dropout;
};

/* KD warm-up: the student's one-step x_hat from noise regressed onto the teacher's samples. */
struct KdConfig {
    int64_t pairs;       /* how many noise-data pairs the teacher makes (paper: 10,000) */
    double guidance;     /* of the teacher's sampler while making them */
    struct IntList skip_layers; /* blocks left out in the negative pass (paper: 10) */
};

struct Stage1Config {
    enum Stage1Method method;
    double guidance, fd_delta, s_min, s_max, s_shift, norm_const_per_dim;
    double tm_prob;      /* probability of r = s */
    double text_dropout;
};

struct Stage2Config {
    double guidance, gan_weight;
    enum VsdNorm vsd_norm;
    double t_shift, t_min, t_max;
    int64_t student_every; /* iteration k updates the student when k % student_every == 0 */
    bool rollout;          /* false: the ablation that draws one inner step from data */
};

struct OptimizerConfig {
    double lr, betas[2], eps, weight_decay;
    double lr_fake, lr_discriminator; /* 0: the same as lr */
    double grad_clip;                 /* global norm; 0: off */
    enum Schedule schedule;
    int64_t warmup;                   /* iterations of linear warm-up */
    double lr_min_ratio;              /* where cosine ends, as a share of lr */
};

struct EmaConfig {
    double decay; /* 0: off */
};

struct TrainConfig {
    enum Stage stage;
    int64_t seed, iterations, global_batch, micro_batch; /* micro_batch: samples per rank and pass */
    enum Recompute recompute; /* what backward computes again of a block's activations */
    int64_t max_skipped;  /* non-finite steps in a row before the run stops */
    int64_t log_every;
    int64_t watchdog;     /* seconds without any rank's work that end the run; 0: off */
    int64_t dump_at;      /* iteration whose step is written as a replay case; -1: none */
};

/* What computes. */
struct DeviceConfig {
    enum BackendKind backend;
    enum Dtype precision;
    bool deterministic, tune_gemm, graphs;
};

/* What of a role each rank keeps for itself alone (rank_grid.h). */
enum ShardMode {
    SHARD_NONE,      /* nothing: each rank has everything */
    SHARD_OPTIMIZER, /* masters, moments, averages and summed gradients (ZeRO-1) */
    SHARD_FULL       /* the weights too, and those of frozen networks (ZeRO-3) */
};

struct ParallelConfig {
    enum ShardMode shard;
    int64_t replicas; /* of what is sharded */
    int64_t sequence; /* ranks that share each sample's tokens */
};

struct DataConfig {
    struct StringList files;
    int64_t prefetch; /* batches read ahead */
};

/* Checkpoints that a stage starts from.  An empty path means "not given". */
struct InitConfig {
    char *teacher; /* weights of teacher and fake score, and of the student's start */
    char *student; /* the student's start, when it comes from an earlier stage */
    bool use_ema;  /* take the EMA weights where the checkpoint has them */
};

struct CheckpointConfig {
    int64_t every, keep_last, keep_every; /* keep_every: iterations whose multiples are kept; 0: none */
    int64_t zstd_level;
};

struct PreviewConfig {
    int64_t every; /* 0: off */
    struct StringList prompts; /* must occur in the data set; empty: its first ones */
    int64_t count;
};

struct SamplerConfig {
    enum Solver solver;
    int64_t steps;
    double shift, guidance;
    int64_t seed;
};

/* Where the value of a key came from, for messages about contradictions between keys. */
struct ConfigOrigin {
    char *source; /* path of a file, or the override as it was typed; NULL: the default */
    int line;     /* from 1; 0 for an override */
};

struct Config {
    struct ModelConfig model;
    struct StudentConfig student;
    struct DiscriminatorConfig discriminator;
    struct TeacherConfig teacher;
    struct KdConfig kd;
    struct Stage1Config stage1;
    struct Stage2Config stage2;
    struct OptimizerConfig optimizer;
    struct EmaConfig ema;
    struct TrainConfig train;
    struct DeviceConfig device;
    struct ParallelConfig parallel;
    struct DataConfig data;
    struct InitConfig init;
    struct CheckpointConfig checkpoint;
    struct PreviewConfig preview;
    struct SamplerConfig sampler;
    char *out;     /* top-level key `out`: the folder of the run */
    char *resume;  /* top-level key `resume`: none | auto | path of a checkpoint */
    char *kind;    /* top-level key `kind`: replay cases only */
    struct IntList skip_layers; /* top-level key `skip_layers`: replay cases only */
    struct ConfigOrigin *origins; /* one per row of config_keys[], in its order */
};

/* Whether stage two has a discriminator. */
static inline bool config_is_adversarial(const struct Config *config) {
    return config->stage2.gan_weight > 0.0 && config->discriminator.type != DISCRIMINATOR_NONE;
}

/* All defaults.  A configuration owns its strings: pass it by pointer, free it with config_free. */
void config_init(struct Config *config);
void config_free(struct Config *config);

/* Reads a YAML file (at most 1 MiB) over what `config` already holds.  Its top-level key `base` names
 * another file, relative to this one, that is read first: at most four deep, no cycles.  Errors name
 * file, line and key: a file that cannot be read, YAML syntax, anchors, aliases, tags and further
 * documents, unknown and duplicate keys and sections, wrong types, values out of range.  After an
 * error `config` may hold a part of the file; only config_free is of use then. */
bool config_load(struct Config *config, const char *path, struct Error *err);

/* The same for a text at hand, such as the one that a checkpoint carries; `name` stands for it in
 * messages.  A key `base` is not followed. */
bool config_load_text(struct Config *config, const char *name, const char *text, struct Error *err);

/* One override "section.key=value" (or "out=...", "resume=..."), in the syntax of a YAML value; with
 * nothing behind "=" it is the empty string.  On an error, which names the assignment, `config` is
 * unchanged. */
bool config_override(struct Config *config, const char *assignment, struct Error *err);

/* Contradictions between keys (H >= L, a tap beyond L, ...) in what the stage or the replay case
 * uses.  The message names every key involved, its value and where that was given.  Call after all
 * overrides; relies on the ranges that config_load and config_override have checked. */
bool config_check(const struct Config *config, struct Error *err);

/* Besides: a training run needs a folder and data. */
bool config_check_run(const struct Config *config, struct Error *err);

/* What depends on the data's latents: the patches must tile `shape` with a token at least for each rank
 * of parallel.sequence, and a discriminator's four layers of strided convolutions, which work on the
 * grid of the latents, must leave at least 1 x 1 x 1 of it. */
bool config_check_video(const struct Config *config, const struct VideoShape *shape,
                        struct Error *err);

/* The machine that the section device: asks for. */
struct BackendChoice config_device(const struct Config *config);

/* The resolved configuration as YAML: what config_load reads back to the same bits. */
void config_print(const struct Config *config, FILE *out);
/* The same as a fresh string that the caller frees. */
char *config_to_yaml(const struct Config *config);
/* The reference page: every key with type, range, default and help. */
void config_print_keys(FILE *out);

/* The name of an enum's value: config_enum_name("train.stage", STAGE_KD) is "kd".  A key that is no
 * enum, or a value that it does not have, is a broken invariant. */
const char *config_enum_name(const char *key, int value);

#endif
