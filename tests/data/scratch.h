/* A temporary folder for the files of one test binary, and whole files as bytes. */
#ifndef TMD_TESTS_SCRATCH_H
#define TMD_TESTS_SCRATCH_H

#include <stdbool.h>
#include <stddef.h>

/* A fresh folder; scratch_remove deletes it with all it holds and frees the name. */
char *scratch_make(void);
void scratch_remove(char *folder);

/* Fixtures for cmocka: a folder for each test, whose name is its state; */
int scratch_set_up(void **state);
int scratch_tear_down(void **state);
#define WITH_FOLDER(test) cmocka_unit_test_setup_teardown(test, scratch_set_up, scratch_tear_down)

/* or one folder for all tests of a program, with its name. */
int scratch_group_set_up(void **state);
int scratch_group_tear_down(void **state);
const char *scratch_folder(void);
/* "<scratch_folder()>/<name>", which lasts as long as the folder; for a few files that many tests
 * use. */
char *scratch_file(const char *name);

/* "<folder>/<name>"; the caller frees it. */
char *scratch_path(const char *folder, const char *name);

void scratch_write(const char *path, const void *bytes, size_t n_bytes);
/* The caller frees the bytes. */
unsigned char *scratch_read(const char *path, size_t *n_bytes);
bool scratch_exists(const char *path);
void scratch_make_folder(const char *path);
void scratch_remove_file(const char *path);
/* Flips a bit in the middle of the place where the file holds these bytes. */
void scratch_flip(const char *path, const void *bytes, size_t n_bytes);
/* How many entries of the folder end with `suffix`. */
int scratch_count(const char *folder, const char *suffix);

/* Stands in for a full disk: from now on this process cannot make a file longer than this. */
void scratch_limit_files(size_t n_bytes);
void scratch_lift_limit(void);

/* The code with which `run(folder, limit)` ends a process of its own; anything but an exit ends the
 * test. */
int scratch_exit_code_of(void (*run)(const char *folder, size_t limit), const char *folder,
                         size_t limit);

#endif
