/* What the discriminator's files share: the interface behind which the kinds of heads differ, and
 * how their tensors start.  The formulas stand in discriminator.h. */
#ifndef TMD_DISCRIMINATOR_BODY_H
#define TMD_DISCRIMINATOR_BODY_H

#include "model/discriminator.h"

static const float LEAKY_SLOPE = 0.2f, NORM_EPS = 1e-5f;

/* One head on its way forward or back. */
struct HeadPass {
    const struct Discriminator *d;
    int first_param; /* the head's first tensor */
    int64_t batch;
    struct VideoShape shape;
};

/* From a tap to a vector per sample. */
struct DiscriminatorBody {
    /* Adds the tensors of the head named `head`. */
    void (*params)(struct ParamTable *table, const char *head, const struct ModelConfig *model,
                   const struct DiscriminatorConfig *config);
    /* pooled [B, channels[2]] */
    void (*forward)(const struct HeadPass *pass, const Act *tap, float *pooled, struct Arena *arena,
                    struct DiscriminatorHeadTape *tape);
    /* dtap is overwritten; NULL: not wanted. */
    void (*backward)(const struct HeadPass *pass, Act *dtap, const float *dpooled,
                     const struct DiscriminatorHeadTape *tape, struct Arena *arena);
};
extern const struct DiscriminatorBody discriminator_conv_body, discriminator_attention_body;

/* The tensor "<head>.<layer>.<part>". */
void discriminator_add(struct ParamTable *table, const char *head, const char *layer,
                       const char *part, int flags, enum ParamInit init, double scale,
                       const int64_t shape[PARAM_MAX_DIMS]);
/* A layer's "<head>.<layer>.weight" [shape] and ".bias" [shape[0]], as they start. */
void discriminator_add_layer(struct ParamTable *table, const char *head, const char *layer,
                             int flags, const int64_t shape[PARAM_MAX_DIMS]);
/* A norm's "<head>.<norm>.weight" and ".bias", both [n], in float32. */
void discriminator_add_norm(struct ParamTable *table, const char *head, const char *norm,
                            int64_t n);

/* The largest divisor of n that is not above `limit`. */
static inline int64_t largest_divisor(int64_t n, int64_t limit) {
    int64_t divisor = n < limit ? n : limit;
    while (n % divisor) divisor--;
    return divisor;
}

#endif
