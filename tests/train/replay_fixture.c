/* A case is copied file by file into a scratch folder; edits write a whole file anew. */
#define _GNU_SOURCE /* memmem */
#include "replay_fixture.h"

#include <fcntl.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../data/scratch.h"
#include "data/safetensors.h"
#include "data/safetensors_writer.h"

const char *const case_files[CASE_FILES] = {
    "case.yaml",           "inputs.safetensors", "expected.safetensors",     "teacher.safetensors",
    "student.safetensors", "fake.safetensors",   "discriminator.safetensors"};

char *case_copy_file(const struct CaseCopy *c, const char *name) {
    return scratch_path(c->folder, name);
}

struct CaseCopy case_copy_make(const char *name) {
    struct CaseCopy c = {.scratch = scratch_make()};
    c.folder = scratch_path(c.scratch, "");
    for (int i = 0; i < CASE_FILES; i++) {
        size_t n_bytes;
        char *from = xprintf("%s/%s/%s", TMD_CASES_DIR, name, case_files[i]),
             *to = case_copy_file(&c, case_files[i]);
        if (scratch_exists(from)) {
            unsigned char *bytes = scratch_read(from, &n_bytes);
            scratch_write(to, bytes, n_bytes);
            free(bytes);
        }
        free(from);
        free(to);
    }
    return c;
}

void case_copy_remove(struct CaseCopy *c) {
    free(c->folder);
    scratch_remove(c->scratch);
}

int replay_command(const struct CaseCopy *c, const char *flag, const char *value, char **message) {
    char *argv[] = {(char *)(uintptr_t) "replay", c->folder, (char *)(uintptr_t)flag,
                    (char *)(uintptr_t)value, NULL};
    char *path = scratch_path(c->scratch, "printed");
    int streams[] = {STDOUT_FILENO, STDERR_FILENO}, saved[2];
    int file = open(path, O_CREAT | O_TRUNC | O_WRONLY | O_APPEND, 0666);
    fflush(stdout);
    for (int i = 0; i < 2; i++) {
        saved[i] = dup(streams[i]);
        assert_true(dup2(file, streams[i]) >= 0);
    }
    int code = cmd_replay(flag ? 4 : 2, argv);
    fflush(stdout);
    for (int i = 0; i < 2; i++) {
        assert_true(dup2(saved[i], streams[i]) >= 0);
        close(saved[i]);
    }
    close(file);
    size_t n_bytes;
    unsigned char *text = scratch_read(path, &n_bytes);
    *message = xprintf("%.*s", (int)n_bytes, (const char *)text);
    free(text);
    free(path);
    return code;
}

void assert_replay(const struct CaseCopy *c, int expected_code) {
    char *message;
    int code = replay_command(c, NULL, NULL, &message);
    if (code != expected_code) fail_msg("exit code %d, not %d: %s", code, expected_code, message);
    free(message);
}

void assert_refused(const struct CaseCopy *c, const char *word, const char *other_word) {
    char *message;
    int code = replay_command(c, NULL, NULL, &message);
    if (code != EXIT_USER) fail_msg("exit code %d: %s", code, message);
    if (strncmp(message, "tmd: ", 5) != 0 || strchr(message, '\n') != message + strlen(message) - 1)
        fail_msg("not one sentence: %s", message);
    if (!strstr(message, word) || !strstr(message, other_word))
        fail_msg("names '%s' and '%s'? %s", word, other_word, message);
    free(message);
}

/* ---- edits ---- */

/* Announces `info`'s name and shape, edited. */
static void declare(struct SafetensorsWriter *w, const struct SafetensorsInfo *info,
                    enum Dtype dtype, enum Edit edit) {
    int64_t shape[SAFETENSORS_MAX_DIMS + 1] = {1};
    bool reshape = edit == EDIT_RESHAPE;
    memcpy(shape + 1, info->shape, sizeof *shape * (size_t)info->n_dims);
    if (edit == EDIT_EMPTY) shape[1] = 0;
    safetensors_writer_declare(w, info->name, dtype, info->n_dims + reshape, shape + !reshape);
}

/* Writes a tensor of zeros that was declared as integers. */
static void write_integers(struct SafetensorsWriter *w, const struct SafetensorsInfo *info) {
    struct Error err;
    int64_t *zeros = xcalloc((size_t)info->n_elems * sizeof *zeros);
    assert_true(safetensors_write_i64(w, info->name, zeros, &err));
    free(zeros);
}

static void edit_values(float *data, enum Edit edit, int64_t n_elems) {
    for (int64_t i = 0; edit == EDIT_NUDGE && i < n_elems; i++) data[i] *= 1.1f;
    for (int64_t i = 0; edit == EDIT_EARLY && i < n_elems; i++) data[i] = 0.001f;
    if (edit == EDIT_NAN) data[n_elems / 2] = -NAN;
}

void replay_edit(const struct CaseCopy *c, const char *file, const char *name, enum Edit edit) {
    struct Safetensors *st;
    struct Error err;
    char *path = case_copy_file(c, file);
    const int64_t one = 1;
    assert_true(safetensors_open(path, &st, &err));
    assert_true((safetensors_find(st, name) >= 0) == (edit != EDIT_ADD));
    struct SafetensorsWriter *w = safetensors_writer_new(path);
    if (edit == EDIT_ADD) safetensors_writer_declare(w, name, DTYPE_F32, 1, &one);
    for (int pass = 0; pass < 2; pass++)
        for (int64_t i = 0; i < safetensors_count(st); i++) {
            const struct SafetensorsInfo *info = safetensors_info(st, i);
            bool edited = strcmp(info->name, name) == 0;
            bool integers = edited ? edit == EDIT_INTEGERS : info->dtype == DTYPE_I64;
            if (edited && edit == EDIT_DROP) continue;
            if (pass == 0) {
                declare(w, info, integers ? DTYPE_I64 : DTYPE_F32, edited ? edit : EDIT_NONE);
                continue;
            }
            if (integers) {
                write_integers(w, info);
                continue;
            }
            float *data = xmalloc((size_t)info->n_elems * sizeof *data);
            assert_true(safetensors_read_f32(st, i, data, &err));
            if (edited) edit_values(data, edit, info->n_elems);
            assert_true(safetensors_write_f32(w, info->name, data, &err));
            free(data);
        }
    if (edit == EDIT_ADD) assert_true(safetensors_write_f32(w, name, &(float){1.0f}, &err));
    assert_true(safetensors_writer_commit(w, &err));
    safetensors_close(st);
    free(path);
}

void replay_edit_text(const struct CaseCopy *c, const char *file, const char *from,
                      const char *to) {
    size_t n_bytes;
    char *path = case_copy_file(c, file);
    unsigned char *bytes = scratch_read(path, &n_bytes);
    unsigned char *at = memmem(bytes, n_bytes, from, strlen(from));
    assert_non_null(at);
    assert_int_equal(strlen(from), strlen(to));
    memcpy(at, to, strlen(to));
    scratch_write(path, bytes, n_bytes);
    free(bytes);
    free(path);
}

void replay_edit_configuration(const struct CaseCopy *c, const char *from, const char *to) {
    replay_edit_text(c, "case.yaml", from, to);
}
