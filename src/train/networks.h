/* The networks of a run, by role: their tables, their weights, and how a step gets at them. */
#ifndef TMD_NETWORKS_H
#define TMD_NETWORKS_H

#include "model/discriminator.h"
#include "model/generator.h"
#include "train/config.h"

enum Role { ROLE_TEACHER, ROLE_STUDENT, ROLE_FAKE, ROLE_DISCRIMINATOR, ROLE_COUNT };

/* "teacher", "student", "fake", "discriminator": names of files, groups and metrics. */
const char *role_name(enum Role role);

/* Which roles a run has, and what of each. */
struct NetworksPlan {
    bool present[ROLE_COUNT], trained[ROLE_COUNT];
    enum Role main; /* the network that the run is for, and that an EMA follows */
    bool ema;
    struct Share share[ROLE_COUNT]; /* of the weights that this process holds */
};
/* What a stage needs: the network it trains has gradients and moments, the others are frozen. */
struct NetworksPlan networks_plan(const struct Config *config);

struct Networks {
    const struct Config *config;
    const struct Backend *be;
    struct NetworksPlan plan;
    struct WanGeometry geometry; /* of a step */
    struct WanGeometry whole;    /* the same, with all tokens here whatever `split` says */
    struct TokenSplit split;
    struct ParamTable wan_table, student_table, discriminator_table;
    struct Weights weights[ROLE_COUNT];
    struct Weights frozen[ROLE_COUNT]; /* the same buffers without gradients */
};

/* Allocates zeroed weights for latents of shape `video`. */
void networks_init(struct Networks *nets, const struct Config *config, const struct Backend *be,
                   struct NetworksPlan plan, struct VideoShape video);
/* Frozen views are those of the weights as they are now: after hooks have been set. */
void networks_freeze(struct Networks *nets);
void networks_free(struct Networks *nets);

/* From here on steps compute a part of each sample's tokens; *nets keeps its place. */
void networks_split_tokens(struct Networks *nets, struct TokenSplit split);
/* How many ranks share a sample's tokens. */
int networks_parts(const struct Networks *nets);

const struct ParamTable *networks_table(const struct Networks *nets, enum Role role);

/* Views of a role; frozen views differentiate with respect to inputs only. */
enum View { VIEW_TRAINED, VIEW_FROZEN };
struct Wan networks_wan(const struct Networks *nets, enum Role role, enum View view);
struct Student networks_student(const struct Networks *nets, enum View view);
struct Discriminator networks_discriminator(const struct Networks *nets, enum View view);

/* What training keeps of a forward pass (train.recompute). */
enum Keep networks_keep(const struct Networks *nets);

/* Elements of one latent, and of one sample's text. */
int64_t networks_latent_elems(const struct Networks *nets);
int64_t networks_text_elems(const struct Networks *nets);

#endif
