/* One table of fields per struct drives writing and reading. */
#include "data/checkpoint_model.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

#include "data/wan_config.h"

/* A number of a struct and the key that keeps it. */
struct Field {
    const char *key;
    enum CkptKind kind; /* CKPT_INT: int64_t, CKPT_REAL: double */
    size_t offset;
};

#define MODEL(name, kind)                                                                          \
    { "model." #name, kind, offsetof(struct ModelConfig, name) }
#define PATCH(d)                                                                                   \
    { "model.patch_size." #d, CKPT_INT, offsetof(struct ModelConfig, patch_size[d]) }
#define STUDENT(name, kind)                                                                        \
    { "student." #name, kind, offsetof(struct StudentConfig, name) }

static const struct Field model_fields[] = {
    MODEL(dim, CKPT_INT),
    MODEL(ffn_dim, CKPT_INT),
    MODEL(num_heads, CKPT_INT),
    MODEL(num_layers, CKPT_INT),
    MODEL(freq_dim, CKPT_INT),
    MODEL(text_dim, CKPT_INT),
    MODEL(text_len, CKPT_INT),
    MODEL(in_dim, CKPT_INT),
    MODEL(out_dim, CKPT_INT),
    PATCH(0),
    PATCH(1),
    PATCH(2),
    MODEL(eps, CKPT_REAL),
};

static const struct Field student_fields[] = {
    STUDENT(head_blocks, CKPT_INT),  STUDENT(inner_steps, CKPT_INT),
    STUDENT(outer_steps, CKPT_INT),  STUDENT(inner_shift, CKPT_REAL),
    STUDENT(outer_shift, CKPT_REAL), STUDENT(t_max, CKPT_REAL),
};

enum {
    N_MODEL_FIELDS = sizeof model_fields / sizeof *model_fields,
    N_STUDENT_FIELDS = sizeof student_fields / sizeof *student_fields,
};

#define FUSION_KEY "student.fusion"

const char *fusion_text(enum Fusion fusion) {
    return fusion == FUSION_GATED ? "gated" : "concat";
}

static bool set_fields(struct CkptWriter *w, const struct Field *fields, int n_fields,
                       const void *from, struct Error *err) {
    bool set = true;
    for (int i = 0; set && i < n_fields; i++) {
        const void *place = (const char *)from + fields[i].offset;
        set = fields[i].kind == CKPT_INT
                  ? ckpt_set_int(w, fields[i].key, *(const int64_t *)place, err)
                  : ckpt_set_real(w, fields[i].key, *(const double *)place, err);
    }
    return set;
}

static bool get_fields(const struct Ckpt *ckpt, const struct Field *fields, int n_fields, void *to,
                       struct Error *err) {
    bool got = true;
    for (int i = 0; got && i < n_fields; i++) {
        void *place = (char *)to + fields[i].offset;
        got = fields[i].kind == CKPT_INT ? ckpt_get_int(ckpt, fields[i].key, place, err)
                                         : ckpt_get_real(ckpt, fields[i].key, place, err);
    }
    return got;
}

bool ckpt_set_model(struct CkptWriter *w, const struct ModelConfig *model, struct Error *err) {
    return set_fields(w, model_fields, N_MODEL_FIELDS, model, err);
}

bool ckpt_set_student(struct CkptWriter *w, const struct StudentConfig *student,
                      struct Error *err) {
    return set_fields(w, student_fields, N_STUDENT_FIELDS, student, err) &&
           ckpt_set_text(w, FUSION_KEY, fusion_text(student->fusion), err);
}

bool ckpt_get_model(const struct Ckpt *ckpt, struct ModelConfig *model, struct Error *err) {
    *model = (struct ModelConfig){0};
    if (!get_fields(ckpt, model_fields, N_MODEL_FIELDS, model, err)) return false;
    return wan_config_check(model, err) ||
           error_prefix(err, "checkpoint %s: model", ckpt_path(ckpt));
}

static bool check_student(const struct StudentConfig *student, struct Error *err) {
    enum { MAX_STEPS = 10000 };
    if (student->head_blocks < 0 || student->inner_steps < 1 || student->inner_steps > MAX_STEPS ||
        student->outer_steps < 1 || student->outer_steps > MAX_STEPS)
        return error_set(err, "student with %lld head blocks, %lld inner and %lld outer steps",
                         (long long)student->head_blocks, (long long)student->inner_steps,
                         (long long)student->outer_steps);
    if (!(student->inner_shift > 0 && isfinite(student->inner_shift) && student->outer_shift > 0 &&
          isfinite(student->outer_shift) && student->t_max > 0 && student->t_max <= 1))
        return error_set(err, "student with shifts %g and %g and t_max %g", student->inner_shift,
                         student->outer_shift, student->t_max);
    return true;
}

bool ckpt_get_student(const struct Ckpt *ckpt, struct StudentConfig *student, struct Error *err) {
    const char *fusion;
    *student = (struct StudentConfig){0};
    if (!get_fields(ckpt, student_fields, N_STUDENT_FIELDS, student, err) ||
        !ckpt_get_text(ckpt, FUSION_KEY, &fusion, err))
        return false;
    student->fusion = strcmp(fusion, "concat") == 0 ? FUSION_CONCAT : FUSION_GATED;
    if (strcmp(fusion, fusion_text(student->fusion)) != 0)
        return error_set(err, "checkpoint %s: '" FUSION_KEY "' is neither gated nor concat",
                         ckpt_path(ckpt));
    return check_student(student, err) || error_prefix(err, "checkpoint %s", ckpt_path(ckpt));
}
