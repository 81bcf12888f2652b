/* The networks of a run, by role: their tables, their weights, and how a step gets at them.
 *
 * Stage two has all four: the frozen teacher, the student, the fake score (a copy of the teacher
 * that learns to denoise what the student generates) and the discriminator. */
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
    enum Role main; /* the network that the run is for */
    bool ema;       /* an average follows the main role's weights */
    struct Share share[ROLE_COUNT]; /* which share of a role's weights this process holds */
};
/* The plan of the configured stage, with whole weights. */
struct NetworksPlan networks_plan(const struct Config *config);

struct Networks {
    const struct Config *config;
    const struct Backend *be;
    struct NetworksPlan plan;
    struct WanGeometry geometry;       /* of the tokens that this rank computes in a step */
    struct WanGeometry whole_geometry; /* of all tokens, for passes that a rank makes alone */
    struct TokenSplit split;           /* of the tokens over ranks, if they are split */
    struct ParamTable wan_table, student_table, discriminator_table;
    struct Weights weights[ROLE_COUNT];
    struct Weights frozen[ROLE_COUNT]; /* views of `weights` without gradients */
};

/* Allocates zeroed weights for latents of shape `video`. */
void networks_init(struct Networks *nets, const struct Config *config, const struct Backend *be,
                   struct NetworksPlan plan, struct VideoShape video);
/* Makes `frozen` from `weights` as they are now; to be called again after hooks were set. */
void networks_make_frozen_views(struct Networks *nets);
void networks_free(struct Networks *nets);

/* From here on steps compute one part of each sample's tokens.  *nets must not move afterwards. */
void networks_split_tokens(struct Networks *nets, struct TokenSplit split);
/* How many ranks share a sample's tokens. */
int networks_parts(const struct Networks *nets);

const struct ParamTable *networks_table(const struct Networks *nets, enum Role role);

/* Views of a role; a frozen view has no parameter gradients, only those of its inputs. */
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
