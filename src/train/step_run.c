/* Everything that depends on the kind of step, in switches over it. */
#include "train/step_run.h"

#include "train/step_common.h"

#include <string.h>

static const char *const kind_names[STEP_KIND_COUNT] = {"teacher", "kd", "stage1", "student",
                                                        "critic"};

const char *step_kind_name(enum StepKind kind) {
    return kind_names[kind];
}

bool step_kind_parse(const char *name, enum StepKind *kind) {
    for (int i = 0; i < STEP_KIND_COUNT; i++) {
        if (strcmp(name, kind_names[i]) == 0) {
            *kind = (enum StepKind)i;
            return true;
        }
    }
    return false;
}

enum StepKind step_kind_at(const struct Config *config, int64_t iteration) {
    switch (config->train.stage) {
    case STAGE_TEACHER: return STEP_TEACHER;
    case STAGE_KD: return STEP_KD;
    case STAGE_STAGE1: return STEP_STAGE1;
    case STAGE_STAGE2: break;
    }
    return iteration % config->stage2.student_every == 0 ? STEP_STUDENT : STEP_CRITIC;
}

bool step_trains(enum StepKind kind, enum Role role) {
    switch (kind) {
    case STEP_TEACHER: return role == ROLE_TEACHER;
    case STEP_CRITIC: return role == ROLE_FAKE || role == ROLE_DISCRIMINATOR;
    default: return role == ROLE_STUDENT;
    }
}

bool step_reads(enum StepKind kind, enum Role role) {
    return step_trains(kind, role) || kind == STEP_STUDENT || kind == STEP_CRITIC;
}

void step_run(const struct StepContext *ctx, enum StepKind kind, const struct StepInputs *in,
              struct StepResult *result) {
    result->kind = kind;
    result->batch = in->batch;
    switch (kind) {
    case STEP_TEACHER: step_teacher(ctx, in, &result->teacher); break;
    case STEP_KD: step_kd(ctx, in, &result->kd); break;
    case STEP_STAGE1: step_stage1(ctx, in, &result->stage1); break;
    case STEP_STUDENT: step_student(ctx, in, &result->student); break;
    case STEP_CRITIC: step_critic(ctx, in, &result->critic); break;
    case STEP_KIND_COUNT: break;
    }
}

/* The weighted sum of per-sample values. */
static double weighted_sum(const struct StepContext *ctx, const double *device, int64_t batch) {
    double host[STUDENT_MAX_BATCH], sum = 0.0;
    ctx->nets->be->download(ctx->nets->be, host, device, batch * (int64_t)sizeof(double));
    for (int64_t b = 0; b < batch; b++) sum += host[b];
    return step_replicated_weight(ctx) * sum;
}

int step_scalars(const struct StepContext *ctx, const struct StepResult *result,
                 struct StepScalar out[STEP_MAX_SCALARS]) {
    double n = (double)networks_latent_elems(ctx->nets);
    int64_t batch = result->batch;
    switch (result->kind) {
    case STEP_TEACHER:
        out[0] = (struct StepScalar){"loss", weighted_sum(ctx, result->teacher.squares, batch) / n, false};
        return 1;
    case STEP_KD:
        out[0] = (struct StepScalar){"loss", weighted_sum(ctx, result->kd.squares, batch) / n, false};
        return 1;
    case STEP_STAGE1:
        out[0] = (struct StepScalar){"loss", weighted_sum(ctx, result->stage1.loss, batch), false};
        out[1] = (struct StepScalar){
            "mean_square", weighted_sum(ctx, result->stage1.squares, batch) / n, .derived = true};
        return 2;
    case STEP_STUDENT: {
        double vsd = weighted_sum(ctx, result->student.vsd, batch);
        double gan = weighted_sum(ctx, result->student.gan, batch);
        out[0] = (struct StepScalar){"loss", vsd + ctx->nets->config->stage2.gan_weight * gan, false};
        out[1] = (struct StepScalar){"vsd", vsd, false};
        out[2] = (struct StepScalar){"gan", gan, false};
        return 3;
    }
    case STEP_CRITIC:
        out[0] = (struct StepScalar){"fake_loss", weighted_sum(ctx, result->critic.squares, batch) / n, false};
        out[1] = (struct StepScalar){"disc_loss", weighted_sum(ctx, result->critic.disc_fake, batch) +
                                                      weighted_sum(ctx, result->critic.disc_real, batch), false};
        return 2;
    case STEP_KIND_COUNT: break;
    }
    return 0;
}

int step_videos(const struct StepResult *result, struct StepVideo out[STEP_MAX_VIDEOS]) {
    switch (result->kind) {
    case STEP_STAGE1:
        out[0] = (struct StepVideo){"u", result->stage1.u};
        out[1] = (struct StepVideo){"v", result->stage1.v};
        out[2] = (struct StepVideo){"jvp", result->stage1.jvp};
        out[3] = (struct StepVideo){"target", result->stage1.target};
        return 4;
    case STEP_STUDENT:
        out[0] = (struct StepVideo){"x_hat", result->student.x_hat};
        out[1] = (struct StepVideo){"g_fake", result->student.g_fake};
        out[2] = (struct StepVideo){"g_teacher", result->student.g_teacher};
        return 3;
    case STEP_CRITIC: out[0] = (struct StepVideo){"x_hat", result->critic.x_hat}; return 1;
    case STEP_KD: out[0] = (struct StepVideo){"x_hat", result->kd.x_hat}; return 1;
    default: return 0;
    }
}
