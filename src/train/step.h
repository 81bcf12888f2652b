/* One evaluation of each stage's losses and gradients, written once for training, for replay and for
 * every backend, close to the paper's pseudo-code (method.md; arXiv 2601.09881, Algorithms 1 to 3).
 *
 * A step reads its batch and all its draws from StepInputs, so that the same inputs replay it exactly.
 * Gradients accumulate into the trained roles' buffers, each sample weighted by `sample_weight`
 * (1 / global batch), so that summing over passes and ranks gives the batch's mean. */
#ifndef TMD_STEP_H
#define TMD_STEP_H

#include "train/networks.h"

struct StepContext {
    const struct Networks *nets;
    struct Arena *arena;
    struct StepTapes *tapes; /* host memory that a step needs for bookkeeping */
    double sample_weight;
    bool last; /* the last pass before the update: gradients may travel as soon as they are complete */
    bool in_step; /* the passes gather weights from all ranks, which must run the same ones */
    bool all_outputs; /* also what the losses do not depend on: for replay */
};

struct StepTapes *step_tapes_create(void);
void step_tapes_destroy(struct StepTapes *tapes);

/* A batch and its draws.  Videos are [B, C, F, H, W] float32 on the device, text
 * [B, text_len, text_dim] Act on the device, times host memory [B].  A stage reads what it names. */
struct StepInputs {
    int64_t batch;
    const float *x;            /* data */
    const float *x1, *y1, *eps; /* outer, inner and renoising noise */
    const Act *text, *neg_text;
    double t_student[STUDENT_MAX_BATCH]; /* outer time of the student's input */
    double t[STUDENT_MAX_BATCH];         /* teacher, stage 1: time; stage 2: renoising time */
    double s[STUDENT_MAX_BATCH], r[STUDENT_MAX_BATCH]; /* inner times */
    bool drop[STUDENT_MAX_BATCH];        /* text dropped: the negative prompt instead */
};

/* Results live in the arena until the caller releases it; per-sample losses [B] float64. */

struct FlowMatchingOutputs {
    double *squares; /* |v - (x1 - x)|^2 per sample */
};
/* Flow matching of the teacher: x_t = (1 - t) x + t x1, loss = mean (v - (x1 - x))^2. */
void step_teacher(const struct StepContext *ctx, const struct StepInputs *in,
                  struct FlowMatchingOutputs *out);

struct KdOutputs {
    double *squares; /* |x_hat - x|^2 per sample */
    float *x_hat;
};
/* KD warm-up: x_hat from the noise x1 at t_student, regressed onto the teacher's sample x. */
void step_kd(const struct StepContext *ctx, const struct StepInputs *in, struct KdOutputs *out);

struct Stage1Outputs {
    double *loss, *squares;
    float *u, *v, *jvp, *target;
};
/* TM-MeanFlow.  Reads x, text, neg_text, x1, y1, t, s, r, drop. */
void step_stage1(const struct StepContext *ctx, const struct StepInputs *in,
                 struct Stage1Outputs *out);

struct StudentOutputs {
    double *vsd, *gan;
    float *x_hat, *g_fake, *g_teacher;
};
/* Stage two, update of the student: VSD + gan_weight GAN.  Reads x, text, neg_text, x1, y1, eps,
 * t_student, t (and s, r without roll-out). */
void step_student(const struct StepContext *ctx, const struct StepInputs *in,
                  struct StudentOutputs *out);

struct CriticOutputs {
    double *squares;             /* of the fake score's residual, summed over the sample */
    double *disc_fake, *disc_real; /* softplus(logit), softplus(-logit) */
    float *x_hat;
};
/* Stage two, update of fake score and discriminator. */
void step_critic(const struct StepContext *ctx, const struct StepInputs *in,
                 struct CriticOutputs *out);

#endif
