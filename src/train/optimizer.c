/* The scalars of an update are computed here; the update itself is an operation of the backend. */
#include "train/optimizer.h"

#include <math.h>

static double base_rate(const struct OptimizerConfig *o, enum Role role) {
    if (role == ROLE_FAKE && o->lr_fake > 0.0) return o->lr_fake;
    if (role == ROLE_DISCRIMINATOR && o->lr_discriminator > 0.0) return o->lr_discriminator;
    return o->lr;
}

double learning_rate(const struct Config *config, enum Role role, int64_t iteration) {
    const struct OptimizerConfig *o = &config->optimizer;
    double rate = base_rate(o, role);
    if (iteration < o->warmup) return rate * (double)(iteration + 1) / (double)o->warmup;
    if (o->schedule == SCHEDULE_CONSTANT) return rate;
    int64_t span = config->train.iterations - o->warmup;
    double progress = span > 0 ? (double)(iteration - o->warmup) / (double)span : 1.0;
    double cosine = 0.5 * (1.0 + cos(M_PI * (progress < 1.0 ? progress : 1.0)));
    return rate * (o->lr_min_ratio + (1.0 - o->lr_min_ratio) * cosine);
}

double gradient_norm_squared(const struct Weights *weights, double *scratch) {
    const struct Backend *be = weights->be;
    double squared;
    be->norm_squared(be, scratch, weights->grad, weights->n_elems);
    be->download(be, &squared, scratch, sizeof squared);
    return squared;
}

void optimizer_update(const struct Config *config, struct Weights *weights, enum Role role,
                      int64_t iteration, int64_t step, double norm) {
    const struct OptimizerConfig *o = &config->optimizer;
    const struct Backend *be = weights->be;
    struct AdamW how = {.lr = learning_rate(config, role, iteration),
                        .beta1 = o->betas[0],
                        .beta2 = o->betas[1],
                        .eps = o->eps,
                        .weight_decay = o->weight_decay,
                        .grad_scale = 1.0,
                        .step = step};
    if (o->grad_clip > 0.0 && norm > o->grad_clip) how.grad_scale = o->grad_clip / norm;
    be->adamw(be, weights->master, weights->compute, weights->adam_m, weights->adam_v, weights->grad,
              how, weights->n_elems);
    if (weights->ema)
        be->ema_update(be, weights->ema, weights->master, config->ema.decay, weights->n_elems);
}
