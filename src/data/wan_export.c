/* Everything is written to a partial folder, which is renamed at the end. */
#include "data/wan_export.h"

#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/checkpoint_model.h"
#include "data/safetensors_writer.h"
#include "data/wan_config.h"

/* What an export works on. */
struct Export {
    struct Ckpt *ckpt;
    char *group; /* "student/param" */
    const struct WanExportOptions *options;
    struct ModelConfig model;
    struct WanExportReport *report;
};

/* ---- tensors ---- */

/* Whether a tensor belongs to the student alone. */
static bool is_own(const char *name) {
    return strncmp(name, "delta_embedding.", 16) == 0 || strncmp(name, "fusion.", 7) == 0;
}

static bool check_range(const struct Export *job, const char *name, const float *values,
                        int64_t n_elems, struct Error *err) {
    const float f16_max = 65504.0f;
    for (int64_t i = 0; job->options->dtype == DTYPE_F16 && i < n_elems; i++) {
        if (fabsf(values[i]) > f16_max)
            return error_set(err,
                             "checkpoint %s: tensor %s/%s has the value %g, which f16 cannot hold",
                             ckpt_path(job->ckpt), job->group, name, (double)values[i]);
    }
    return true;
}

/* From the checkpoint's tensor `name` of the given shape to the file's tensor `as`. */
static bool copy_tensor(struct Export *job, const char *name, int n_dims, const int64_t *shape,
                        struct SafetensorsWriter *w, const char *as, struct Error *err) {
    int64_t n_elems = 1;
    for (int d = 0; d < n_dims; d++) n_elems *= shape[d];
    job->report->n_params += n_elems;
    float *values = xmalloc((size_t)n_elems * sizeof *values);
    bool copied = ckpt_read_f32(job->ckpt, job->group, name, n_dims, shape, false, values, err) &&
                  check_range(job, name, values, n_elems, err) &&
                  safetensors_write_f32(w, as, values, err);
    free(values);
    return copied;
}

static bool finish(struct SafetensorsWriter *w, bool complete, struct Error *err) {
    if (complete) return safetensors_writer_commit(w, err);
    safetensors_writer_abandon(w);
    return false;
}

/* Every tensor that a Wan model of these sizes has. */
static bool write_shared(struct Export *job, const char *folder, struct Error *err) {
    const struct WanExportOptions *options = job->options;
    struct SafetensorsWriter *w =
        safetensors_writer_new_sharded(folder, SAFETENSORS_WAN_STEM, options->max_shard_bytes);
    safetensors_writer_metadata(w, "format", "pt"); /* loaders of the PyTorch world insist on it */
    int64_t n = wan_layout_count(&job->model);
    for (int64_t t = 0; t < n; t++) {
        struct WanTensor tensor = wan_layout_tensor(&job->model, options->layout, t);
        safetensors_writer_declare(w, tensor.name, options->dtype, tensor.n_dims, tensor.shape);
    }
    bool written = true;
    for (int64_t t = 0; written && t < n; t++) {
        struct WanTensor ours = wan_layout_tensor(&job->model, WAN_ORIGINAL, t);
        struct WanTensor theirs = wan_layout_tensor(&job->model, options->layout, t);
        written = copy_tensor(job, ours.name, ours.n_dims, ours.shape, w, theirs.name, err);
    }
    job->report->n_shared = n;
    return finish(w, written, err);
}

/* ---- the student's own ---- */

static void put_number(struct SafetensorsWriter *w, const char *key, double value) {
    char text[32];
    snprintf(text, sizeof text, "%.15g", value);
    safetensors_writer_metadata(w, key, text);
}

/* [0, ..., t_max]: uniform steps, shifted towards 1, the last one moved to t_max. */
static void put_grid(struct SafetensorsWriter *w, const char *key, int64_t n_steps, double shift,
                     double t_max) {
    size_t n_bytes = (size_t)(n_steps + 1) * 28 + 3, used = 1;
    char *text = xmalloc(n_bytes);
    strcpy(text, "[");
    for (int64_t j = 0; j <= n_steps; j++) {
        double u = (double)j / (double)n_steps;
        double t = j == n_steps ? t_max : shift * u / ((shift - 1) * u + 1);
        used += (size_t)snprintf(text + used, n_bytes - used, j ? ", %.17g" : "%.17g", t);
    }
    snprintf(text + used, n_bytes - used, "]");
    safetensors_writer_metadata(w, key, text);
    free(text);
}

static void put_recipe(struct SafetensorsWriter *w, const struct StudentConfig *student) {
    safetensors_writer_metadata(w, "format", "pt");
    put_number(w, "tmd_outer_steps", (double)student->outer_steps);
    put_number(w, "tmd_inner_steps", (double)student->inner_steps);
    put_number(w, "tmd_head_blocks", (double)student->head_blocks);
    put_number(w, "tmd_outer_shift", student->outer_shift);
    put_number(w, "tmd_inner_shift", student->inner_shift);
    put_number(w, "tmd_t_max", student->t_max);
    put_grid(w, "tmd_outer_grid", student->outer_steps, student->outer_shift, student->t_max);
    put_grid(w, "tmd_inner_grid", student->inner_steps, student->inner_shift, student->t_max);
    safetensors_writer_metadata(w, "tmd_fusion", fusion_text(student->fusion));
    safetensors_writer_metadata(w, "tmd_time_scale", "1000");
    safetensors_writer_metadata(w, "tmd_guidance", "1");
}

static bool write_own(struct Export *job, const char *folder, struct Error *err) {
    struct StudentConfig student;
    int64_t first = 0, n = ckpt_group(job->ckpt, job->group, &first);
    if (!ckpt_get_student(job->ckpt, &student, err)) return false;
    char *path = xprintf("%s/" WAN_FLOW_HEAD_FILE, folder);
    struct SafetensorsWriter *w = safetensors_writer_new(path);
    free(path);
    put_recipe(w, &student);
    for (int64_t i = first; i < first + n; i++) {
        const struct CkptTensorInfo *info = ckpt_info(job->ckpt, i);
        if (is_own(info->name))
            safetensors_writer_declare(w, info->name, job->options->dtype, info->n_dims,
                                       info->shape);
    }
    bool written = true;
    for (int64_t i = first; written && i < first + n; i++) {
        const struct CkptTensorInfo *info = ckpt_info(job->ckpt, i);
        if (!is_own(info->name)) continue;
        written = copy_tensor(job, info->name, info->n_dims, info->shape, w, info->name, err);
        job->report->n_own++;
    }
    return finish(w, written, err);
}

/* ---- checking ---- */

/* The group must hold the Wan model, a student's own tensors if it is one, and nothing that would
 * be lost. */
static bool check_group(const struct Export *job, bool is_student, struct Error *err) {
    int64_t first = 0, n = ckpt_group(job->ckpt, job->group, &first), n_own = 0;
    if (n == 0)
        return error_set(err, "checkpoint %s: has no group %s", ckpt_path(job->ckpt), job->group);
    for (int64_t i = first; i < first + n; i++) n_own += is_own(ckpt_info(job->ckpt, i)->name);
    if (n_own > 0 && !is_student)
        return error_set(err, "checkpoint %s: group %s is a student's", ckpt_path(job->ckpt),
                         job->group);
    if (n - n_own != wan_layout_count(&job->model))
        return error_set(
            err, "checkpoint %s: group %s has %lld tensors of the Wan model, which has %lld",
            ckpt_path(job->ckpt), job->group, (long long)(n - n_own),
            (long long)wan_layout_count(&job->model));
    return true;
}

/* ---- the folder ---- */

/* Removes a folder of ours, which has no subfolders. */
static void remove_folder(const char *folder) {
    DIR *dir = opendir(folder);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        char *path = xprintf("%s/%s", folder, entry->d_name);
        unlink(path); /* of "." and ".." it fails, as it should */
        free(path);
    }
    if (dir) closedir(dir);
    rmdir(folder);
}

static bool write_folder(struct Export *job, const char *folder, struct Error *err) {
    bool is_student = strcmp(job->options->role, "student") == 0;
    if (!ckpt_get_model(job->ckpt, &job->model, err) || !check_group(job, is_student, err) ||
        !write_shared(job, folder, err) || (is_student && !write_own(job, folder, err)))
        return false;
    char *path = xprintf("%s/config.json", folder);
    bool written = wan_config_write(path, &job->model, job->options->layout, err);
    free(path);
    return written;
}

/* rmdir refuses a folder that holds anything: the check and the clearing of the way in one. */
static bool clear_target(const char *folder, struct Error *err) {
    return rmdir(folder) == 0 || errno == ENOENT ||
           error_set(err, "%s: cannot be written: it must not exist, or be an empty folder (%s)",
                     folder, strerror(errno));
}

static bool export_to(struct Export *job, const char *folder, struct Error *err) {
    char *partial = xprintf("%s.partial", folder);
    bool done = clear_target(folder, err) &&
                (mkdir(partial, 0777) == 0 ||
                 error_set(err, "%s: cannot be created: %s", partial, strerror(errno)));
    if (done) {
        done = write_folder(job, partial, err) &&
               (rename(partial, folder) == 0 ||
                error_set(err, "%s: cannot be put in place: %s", folder, strerror(errno)));
        if (!done) remove_folder(partial);
    }
    free(partial);
    return done;
}

/* Without slashes at its end, so that ".partial" becomes part of the name. */
static char *plain_folder(const char *folder) {
    char *plain = xstrdup(folder);
    for (size_t n = strlen(plain); n > 1 && plain[n - 1] == '/'; n--) plain[n - 1] = '\0';
    return plain;
}

bool wan_export(const char *checkpoint, const char *folder, const struct WanExportOptions *options,
                struct WanExportReport *report, struct Error *err) {
    struct Export job = {.options = options, .report = report};
    *report = (struct WanExportReport){0};
    if (!ckpt_open(checkpoint, &job.ckpt, err)) return false;
    job.group = xprintf("%s/%s", options->role, options->ema ? "ema" : "param");
    char *plain = plain_folder(folder);
    bool exported = export_to(&job, plain, err);
    free(plain);
    free(job.group);
    ckpt_close(job.ckpt);
    return exported;
}
