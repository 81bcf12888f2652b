/* Inputs are checked against the kind's table before anything runs: names, types, shapes, finiteness. */
#include "train/replay_case.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "train/tensor_list.h"

bool replay_case_open(struct ReplayCase *rc, const char *folder, struct Error *err) {
    char path[PATH_MAX];
    *rc = (struct ReplayCase){.folder = folder};
    config_init(&rc->config);
    snprintf(path, sizeof path, "%s/case.yaml", folder);
    snprintf(rc->inputs_path, sizeof rc->inputs_path, "%s/inputs.safetensors", folder);
    if (config_load(&rc->config, path, err) && safetensors_open(rc->inputs_path, &rc->inputs, err))
        return true;
    config_free(&rc->config);
    return false;
}

void replay_case_close(struct ReplayCase *rc) {
    safetensors_close(rc->inputs);
    config_free(&rc->config);
}

/* The input `name`, which must hold such numbers in this shape; -1 in it is any extent but 0. */
static bool find_input(const struct ReplayCase *rc, const char *name, enum TensorNumbers numbers,
                       int n_dims, const int64_t *shape, int64_t *index, struct Error *err) {
    *index = safetensors_find(rc->inputs, name);
    if (*index < 0) return error_set(err, "%s: input '%s' is missing", rc->inputs_path, name);
    return tensor_check(safetensors_info(rc->inputs, *index), rc->inputs_path, numbers, n_dims, shape,
                        err);
}

/* What is not finite would spread over every output.  (Weights may be so: a step that was not
 * finite is replayed to see where.) */
static bool check_finite(const struct ReplayCase *rc, const char *name, int64_t i, double value,
                         struct Error *err) {
    return isfinite(value) ||
           error_set(err, "%s: input '%s' holds %s at element %lld, expected finite numbers",
                     rc->inputs_path, name, isnan(value) ? "NaN" : "infinity", (long long)i);
}

bool replay_case_read(const struct ReplayCase *rc, const char *name, int n_dims, int64_t *shape,
                      float **out, struct Error *err) {
    int64_t i;
    if (!find_input(rc, name, TENSOR_REALS, n_dims, shape, &i, err)) return false;
    const struct SafetensorsInfo *info = safetensors_info(rc->inputs, i);
    memcpy(shape, info->shape, sizeof *shape * (size_t)n_dims);
    float *values = xmalloc((size_t)info->n_elems * sizeof *values);
    bool ok = safetensors_read_f32(rc->inputs, i, values, err);
    for (int64_t k = 0; ok && k < info->n_elems; k++)
        ok = check_finite(rc, name, k, (double)values[k], err);
    if (ok)
        *out = values;
    else
        free(values);
    return ok;
}

bool replay_case_shape(struct ReplayCase *rc, const char *name, struct Error *err) {
    int64_t i;
    const int64_t wanted[] = {-1, rc->config.model.in_dim, -1, -1, -1};
    if (!find_input(rc, name, TENSOR_REALS, 5, wanted, &i, err)) return false;
    const int64_t *shape = safetensors_info(rc->inputs, i)->shape;
    rc->batch = shape[0];
    rc->video = (struct VideoShape){shape[2], shape[3], shape[4]};
    if (rc->batch > STUDENT_MAX_BATCH)
        return error_set(err, "%s: '%s' has %lld samples, at most %d fit a pass", rc->inputs_path, name,
                         (long long)rc->batch, STUDENT_MAX_BATCH);
    return config_check_video(&rc->config, &rc->video, err);
}

static void *device_memory(struct ReplayCase *rc, int64_t n_bytes) {
    TMD_CHECK(rc->n_device < (int)(sizeof rc->device / sizeof *rc->device), "inputs of a case");
    return rc->device[rc->n_device++] = rc->be->memory_alloc(rc->be, n_bytes);
}

/* Uploads an input; shape as for replay_case_read. */
static bool upload_f32(struct ReplayCase *rc, const char *name, int n_dims, int64_t *shape,
                       const float **out, struct Error *err) {
    float *host;
    if (!replay_case_read(rc, name, n_dims, shape, &host, err)) return false;
    int64_t n_bytes = sizeof *host;
    for (int i = 0; i < n_dims; i++) n_bytes *= shape[i];
    float *device = device_memory(rc, n_bytes);
    rc->be->upload(rc->be, device, host, n_bytes);
    free(host);
    *out = device;
    return true;
}

bool replay_case_channels(struct ReplayCase *rc, const char *name, int64_t channels,
                          const float **out, struct Error *err) {
    const struct VideoShape *v = &rc->video;
    int64_t shape[] = {rc->batch, channels, v->frames, v->height, v->width};
    return upload_f32(rc, name, 5, shape, out, err);
}

bool replay_case_video(struct ReplayCase *rc, const char *name, const float **out,
                       struct Error *err) {
    return replay_case_channels(rc, name, rc->config.model.in_dim, out, err);
}

bool replay_case_videos(struct ReplayCase *rc, const char *name, int64_t n, const float **out,
                        struct Error *err) {
    const struct VideoShape *v = &rc->video;
    int64_t shape[] = {n, rc->batch, rc->config.model.in_dim, v->frames, v->height, v->width};
    return upload_f32(rc, name, 6, shape, out, err);
}

bool replay_case_text(struct ReplayCase *rc, const char *name, const Act **out, struct Error *err) {
    const struct ModelConfig *m = &rc->config.model;
    int64_t n = rc->batch * m->text_len * m->text_dim;
    const float *f32;
    if (!upload_f32(rc, name, 3, (int64_t[]){rc->batch, m->text_len, m->text_dim}, &f32, err))
        return false;
    Act *text = device_memory(rc, n * dtype_bytes(rc->be->act_dtype));
    rc->be->act_from_f32(rc->be, text, f32, n);
    *out = text;
    return true;
}

bool replay_case_times(struct ReplayCase *rc, const char *name, double *out, struct Error *err) {
    int64_t i;
    bool ok = find_input(rc, name, TENSOR_REALS, 1, &rc->batch, &i, err) &&
              safetensors_read_f64(rc->inputs, i, out, err);
    for (int64_t b = 0; ok && b < rc->batch; b++) ok = check_finite(rc, name, b, out[b], err);
    return ok;
}

bool replay_case_flags(struct ReplayCase *rc, const char *name, bool *out, struct Error *err) {
    int64_t i, values[STUDENT_MAX_BATCH];
    if (!find_input(rc, name, TENSOR_INTEGERS, 1, &rc->batch, &i, err) ||
        !safetensors_read_i64(rc->inputs, i, values, err))
        return false;
    for (int64_t b = 0; b < rc->batch; b++) out[b] = values[b] != 0;
    return true;
}

void replay_case_release(struct ReplayCase *rc) {
    for (int i = 0; i < rc->n_device; i++) rc->be->memory_free(rc->be, rc->device[i]);
    rc->n_device = 0;
}

bool replay_case_step_inputs(struct ReplayCase *rc, enum StepKind kind, struct StepInputs *in,
                             struct Error *err) {
    bool stage2 = kind == STEP_STUDENT || kind == STEP_CRITIC;
    bool head = rc->config.student.head_blocks > 0;
    bool drops = kind == STEP_TEACHER || kind == STEP_STAGE1;
    bool inner_times = kind == STEP_STAGE1 || (stage2 && head && !rc->config.stage2.rollout);
    in->batch = rc->batch;
    return replay_case_video(rc, "x", &in->x, err) && replay_case_video(rc, "x1", &in->x1, err) &&
           replay_case_text(rc, "context", &in->text, err) &&
           (kind == STEP_TEACHER || replay_case_video(rc, "y1", &in->y1, err)) &&
           (!stage2 || replay_case_video(rc, "eps", &in->eps, err)) &&
           (!(drops || kind == STEP_STUDENT) ||
            replay_case_text(rc, "neg_context", &in->neg_text, err)) &&
           (kind == STEP_KD || replay_case_times(rc, "t", in->t, err)) &&
           (!(stage2 || kind == STEP_KD) || replay_case_times(rc, "t_student", in->t_student, err)) &&
           (!inner_times || (replay_case_times(rc, "s", in->s, err) &&
                             replay_case_times(rc, "r", in->r, err))) &&
           (!drops || replay_case_flags(rc, "drop", in->drop, err));
}
