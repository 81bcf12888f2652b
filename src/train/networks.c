/* One table of parameters for teacher and fake score, one each for student and discriminator;
 * weights for every role that the plan names. */
#include "train/networks.h"

const char *role_name(enum Role role) {
    static const char *const names[ROLE_COUNT] = {"teacher", "student", "fake", "discriminator"};
    return names[role];
}

struct NetworksPlan networks_plan(const struct Config *config) {
    enum Stage stage = config->train.stage;
    struct NetworksPlan plan = {.main = stage == STAGE_TEACHER ? ROLE_TEACHER : ROLE_STUDENT,
                                .ema = config->ema.decay > 0.0};
    plan.present[plan.main] = plan.trained[plan.main] = true;
    if (stage == STAGE_KD) plan.present[ROLE_TEACHER] = true;
    if (stage == STAGE_STAGE2)
        for (int role = 0; role < ROLE_COUNT; role++) {
            bool used = role != ROLE_DISCRIMINATOR || config_is_adversarial(config);
            plan.present[role] = used;
            plan.trained[role] = used && role != ROLE_TEACHER;
        }
    return plan;
}

const struct ParamTable *networks_table(const struct Networks *nets, enum Role role) {
    switch (role) {
    case ROLE_STUDENT: return &nets->student_table;
    case ROLE_DISCRIMINATOR: return &nets->discriminator_table;
    case ROLE_TEACHER:
    case ROLE_FAKE:
    case ROLE_COUNT: break;
    }
    return &nets->wan_table;
}

void networks_init(struct Networks *nets, const struct Config *config, const struct Backend *be,
                   struct NetworksPlan plan, struct VideoShape video) {
    *nets = (struct Networks){.config = config, .be = be, .plan = plan};
    wan_geometry_init(&nets->whole_geometry, be, &config->model, video);
    nets->geometry = nets->whole_geometry;
    wan_params(&nets->wan_table, &config->model);
    student_params(&nets->student_table, &config->model, &config->student);
    if (plan.present[ROLE_DISCRIMINATOR])
        discriminator_params(&nets->discriminator_table, &config->model, &config->discriminator);
    for (int role = 0; role < ROLE_COUNT; role++) {
        if (!plan.present[role]) continue;
        int arrays = plan.trained[role] ? WEIGHTS_TRAINED : 0;
        if (role == (int)plan.main && plan.ema) arrays |= WEIGHTS_EMA;
        /* never trained in the same step, student and fake score share one gradient */
        bool borrows = role == ROLE_FAKE && plan.trained[ROLE_FAKE] && plan.trained[ROLE_STUDENT];
        if (borrows) arrays &= ~WEIGHTS_GRAD;
        weights_alloc_share(&nets->weights[role], be, networks_table(nets, (enum Role)role), arrays,
                            plan.share[role]);
        if (borrows) weights_borrow_grad(&nets->weights[role], &nets->weights[ROLE_STUDENT]);
    }
    networks_make_frozen_views(nets);
}

void networks_make_frozen_views(struct Networks *nets) {
    for (int role = 0; role < ROLE_COUNT; role++)
        if (nets->plan.present[role])
            nets->frozen[role] = weights_frozen_view(&nets->weights[role]);
}

void networks_free(struct Networks *nets) {
    for (int role = 0; role < ROLE_COUNT; role++)
        if (nets->plan.present[role]) weights_free(&nets->weights[role]);
    params_free(&nets->wan_table);
    params_free(&nets->student_table);
    params_free(&nets->discriminator_table);
    wan_geometry_free(&nets->whole_geometry, nets->be);
}

void networks_split_tokens(struct Networks *nets, struct TokenSplit split) {
    nets->split = split;
    nets->geometry = wan_geometry_part(&nets->whole_geometry, &nets->config->model, &nets->split);
}

int networks_parts(const struct Networks *nets) {
    return nets->geometry.split ? nets->geometry.split->n_parts : 1;
}

static const struct Weights *view_of(const struct Networks *nets, enum Role role, enum View view) {
    return view == VIEW_TRAINED ? &nets->weights[role] : &nets->frozen[role];
}

struct Wan networks_wan(const struct Networks *nets, enum Role role, enum View view) {
    return (struct Wan){.config = &nets->config->model,
                        .weights = view_of(nets, role, view),
                        .geometry = &nets->geometry};
}

struct Student networks_student(const struct Networks *nets, enum View view) {
    return (struct Student){.wan = networks_wan(nets, ROLE_STUDENT, view),
                            .config = &nets->config->student};
}

struct Discriminator networks_discriminator(const struct Networks *nets, enum View view) {
    return (struct Discriminator){.weights = view_of(nets, ROLE_DISCRIMINATOR, view),
                                  .model = nets->config->model,
                                  .config = nets->config->discriminator};
}

enum Keep networks_keep(const struct Networks *nets) {
    static const enum Keep keeps[] = {[RECOMPUTE_NONE] = KEEP_ALL,
                                      [RECOMPUTE_FULL] = KEEP_INPUTS,
                                      [RECOMPUTE_KEEP_ATTENTION] = KEEP_ATTENTION};
    return keeps[nets->config->train.recompute];
}

int64_t networks_latent_elems(const struct Networks *nets) {
    return video_elems(nets->geometry.video, nets->config->model.in_dim);
}

int64_t networks_text_elems(const struct Networks *nets) {
    return nets->config->model.text_len * nets->config->model.text_dim;
}
