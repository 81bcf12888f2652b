/* One evaluation of each stage's losses and gradients, close to the paper's pseudo-code (TMD, arXiv
 * 2601.09881, Algorithms 1 to 3).  Written once: training, replay, benchmark and plan run the same
 * code on every backend.
 *
 * A step reads its batch and all its draws from StepInputs, so that the same inputs replay it exactly.
 * Gradients accumulate into the trained roles' buffers, each sample weighted by `sample_weight`
 * (1 / global batch), so that summing over passes and ranks gives the batch's mean.
 *
 * The symbols (x, x1, y1, t, s, r, m, u, v) are those of README.md, "The way of a sample". */
#ifndef TMD_STEP_H
#define TMD_STEP_H

#include "train/networks.h"

struct StepContext {
    const struct Networks *nets;
    struct Arena *arena;
    struct StepTapes *tapes; /* host memory that a step needs for bookkeeping */
    double sample_weight;
    bool last; /* the last pass before the update: a unit's gradient is complete once backward
                  leaves it, and may be summed over ranks from then on */
    bool lockstep;    /* passes gather weights from all ranks, which must all run the same passes */
    bool all_outputs; /* compute also what the losses do not depend on: for replay */
};

struct StepTapes *step_tapes_create(void);
void step_tapes_destroy(struct StepTapes *tapes);

/* A batch and its draws.  Videos are [B, C, F, H, W] float32 on the device, text [B, text_len,
 * text_dim] Act on the device, times host memory [B].  Each step says what it reads. */
struct StepInputs {
    int64_t batch;
    const float *x;             /* data */
    const float *x1, *y1, *eps; /* outer, inner and renoising noise */
    const Act *text, *neg_text;
    double t_student[STUDENT_MAX_BATCH]; /* stage two, KD: outer time of the student's input */
    double t[STUDENT_MAX_BATCH]; /* teacher, stage one: outer time; stage two: renoising time */
    double s[STUDENT_MAX_BATCH], r[STUDENT_MAX_BATCH]; /* inner times, from s down to r */
    bool drop[STUDENT_MAX_BATCH]; /* the negative prompt in place of the sample's text */
};

/* Results live in the arena until the caller releases it.  Per-sample values are [B] float64,
 * videos [B, C, F, H, W] float32. */

struct FlowMatchingOutputs {
    double *squares; /* |v - (x1 - x)|^2 per sample */
};
/* Flow matching of the teacher: x_t = (1 - t) x + t x1, loss = mean (v(x_t, t, c) - (x1 - x))^2.
 * Reads x, x1, text, neg_text, t, drop. */
void step_teacher(const struct StepContext *ctx, const struct StepInputs *in,
                  struct FlowMatchingOutputs *out);

struct KdOutputs {
    double *squares; /* |x_hat - x|^2 per sample */
    float *x_hat;
};
/* KD warm-up: x_hat = g(x1, t_student; y1), regressed onto the sample x that the teacher made of
 * the noise x1; loss = mean (x_hat - x)^2.  Reads x, x1, y1, text, t_student. */
void step_kd(const struct StepContext *ctx, const struct StepInputs *in, struct KdOutputs *out);

struct Stage1Outputs {
    double *loss;    /* adaptively weighted, see step_stage1.c */
    double *squares; /* |u - target|^2 per sample */
    float *u, *v;    /* mean velocity from s to r, and guided velocity at s */
    float *jvp;      /* du/ds along the path */
    float *target;   /* v - (s - r) du/ds */
};
/* TM-MeanFlow.  Reads x, x1, y1, text, neg_text, t, s, r, drop. */
void step_stage1(const struct StepContext *ctx, const struct StepInputs *in,
                 struct Stage1Outputs *out);

struct StudentOutputs {
    double *vsd, *gan;         /* per sample; see step_stage2.c */
    float *x_hat;              /* what the student generates */
    float *g_fake, *g_teacher; /* x_hat with noise, denoised by fake score and guided teacher */
};
/* Stage two, update of the student: VSD + gan_weight GAN.  Reads x, x1, y1, eps, text, neg_text,
 * t_student, t (and s, r without roll-out). */
void step_student(const struct StepContext *ctx, const struct StepInputs *in,
                  struct StudentOutputs *out);

struct CriticOutputs {
    double *squares;               /* of the fake score's residual, summed over the sample */
    double *disc_fake, *disc_real; /* softplus(logit), softplus(-logit) */
    float *x_hat;
};
/* Stage two, update of fake score and discriminator.  Reads what step_student reads but neg_text. */
void step_critic(const struct StepContext *ctx, const struct StepInputs *in,
                 struct CriticOutputs *out);

#endif
