/* The TMD student: the teacher cut in two (TMD, arXiv 2601.09881, section 3).
 *
 *     main backbone   m = blocks 0 .. L-H-1 of (x_t, t, c)                  once per outer step
 *     flow head       head(y_s, s, r; m) ~ y = x1 - x                       N times per outer step:
 *                     e = time(1000 s) + delta(1000 (s - r)); tokens = fusion(m, patches of y_s);
 *                     blocks L-H .. L-1; output head
 *     flow map        u = y1 - head,  y_r = y_s - (s - r) u
 *
 * With head_blocks = 0 there is no flow head and the student is a Wan DiT (the DMD2-v baseline). */
#ifndef TMD_STUDENT_H
#define TMD_STUDENT_H

#include "model/wan.h"

enum {
    STUDENT_MAX_INNER_STEPS = 16,
    STUDENT_MAX_OUTER_STEPS = 64,
    STUDENT_MAX_BATCH = 256 /* samples in one pass */
};

struct Student {
    struct Wan wan; /* the weights' table is that of student_params */
    const struct StudentConfig *config;
};

/* What a pass of the main backbone keeps for backward. */
struct BackboneTape {
    int64_t batch;
    struct PatchTape patch;
    struct TextTape text;
    struct TimeTape time;
    struct ProjectionTape projection;
    struct StackTape stack;
    struct BlockPass pass;
};

/* What one pass of the main backbone hands to the flow head. */
struct MainFeature {
    const Act *tokens;  /* m [B, S, D] */
    const Act *context; /* embedded text [B, L, D] */
};

/* What the fusion keeps; rows are the tokens of all samples, B S. */
struct FusionTape {
    const Act *m; /* [rows, D], the main feature's tokens */
    Act *h;       /* [rows, D], patch embedding of y_s */
    /* gated */
    float *modulation;   /* [B, 3, D]: shift, scale, gate */
    float *mean, *rstd;  /* [rows], of the norm of h */
    Act *normed;         /* [rows, D], norm(h) (1 + scale) + shift */
    Act *pre, *hidden;   /* [rows, ffn_dim], before and after the GELU */
    Act *out, *mixed;    /* [rows, D], ffn's output; h' = h + gate out */
    /* concat */
    Act *joined;         /* [rows, 2 D] */
};

/* What a pass of the flow head keeps. */
struct FlowHeadTape {
    int64_t batch;
    struct PatchTape patch;
    struct TimeTape time, delta;
    struct ProjectionTape projection;
    struct FusionTape fusion;
    struct StackTape stack;
    struct HeadTape head;
    struct BlockPass pass;
    float *e; /* time vector [B, D] */
};

/* Gradients that the passes of the flow head leave for the backbone: shapes as in MainFeature, both
 * accumulate. */
struct MainFeatureGradients {
    Act *dtokens, *dcontext;
};

/* m(x_t, t, c).  It lives in the arena; with KEEP_NOTHING all else is given back. */
struct MainFeature student_backbone_forward(const struct Student *student, struct WanInputs in,
                                            enum Keep keep, struct Arena *arena,
                                            struct BackboneTape *tape);
/* From the gradient of the main feature, which is overwritten, to the parameters of the backbone.
 * There is no input gradient: x_t comes from data and noise.  `last`: see wan_stack_backward. */
void student_backbone_backward(const struct Student *student, struct MainFeatureGradients dm,
                               const struct BackboneTape *tape, bool last, struct Arena *arena);

/* out [B, C, F, H, W] = head(y_s, s, r; m); host_s, host_r are host memory [B]. */
void flow_head_forward(const struct Student *student, struct MainFeature m, int64_t batch, float *out,
                       const float *y_s, const double *host_s, const double *host_r, enum Keep keep,
                       struct Arena *arena, struct FlowHeadTape *tape);
/* From dout, the gradient of `out`, to the flow head's parameters, to dm (accumulates) and to dy_s
 * [B, C, F, H, W] (overwritten; NULL: not wanted). */
void flow_head_backward(const struct Student *student, struct MainFeatureGradients dm, float *dy_s,
                        const float *dout, const struct FlowHeadTape *tape, bool last,
                        struct Arena *arena);

/* Zeroed gradients of a main feature, in the arena. */
struct MainFeatureGradients main_feature_gradients(const struct Student *student, int64_t batch,
                                                   struct Arena *arena);

#endif
