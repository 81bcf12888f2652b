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
#include "model/model_config.h"

enum Stage { STAGE_TEACHER, STAGE_KD, STAGE_STAGE1, STAGE_STAGE2 };
enum Stage1Method { STAGE1_MEANFLOW, STAGE1_TM };
enum VsdNorm { VSD_NORM_PAPER, VSD_NORM_DMD2 };
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
    bool recompute;
    int64_t max_skipped;  /* non-finite steps in a row before the run stops */
    int64_t log_every;
    int64_t dump_at;      /* iteration whose step is written as a replay case; -1: none */
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
    struct DataConfig data;
    struct InitConfig init;
    struct CheckpointConfig checkpoint;
    struct PreviewConfig preview;
    struct SamplerConfig sampler;
    char *out;     /* top-level key `out`: the folder of the run */
    char *resume;  /* top-level key `resume`: none | auto | path of a checkpoint */
    char *kind;    /* top-level key `kind`: replay cases only */
    struct IntList skip_layers; /* top-level key `skip_layers`: replay cases only */
};

/* All defaults. */
void config_init(struct Config *config);
void config_free(struct Config *config);

/* Reads a YAML file over what `config` already holds.  Unknown and duplicate keys, wrong types and
 * values out of range are errors that name file, line and key. */
bool config_load(struct Config *config, const char *path, struct Error *err);

/* One override "section.key=value" (or "out=...", "resume=..."), in the syntax of a YAML value. */
bool config_override(struct Config *config, const char *assignment, struct Error *err);

/* Contradictions between keys (H >= L, a tap beyond L, ...).  Call after all overrides. */
bool config_check(const struct Config *config, struct Error *err);

/* The resolved configuration as YAML: what config_load reads back to the same bits. */
void config_print(const struct Config *config, FILE *out);
/* The same as a fresh string that the caller frees. */
char *config_to_yaml(const struct Config *config);
/* The reference page: every key with type, range, default and help. */
void config_print_keys(FILE *out);

#endif
