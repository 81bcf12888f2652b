/* A temporary folder for the files of one test binary, and whole files as bytes. */
#ifndef TMD_TESTS_SCRATCH_H
#define TMD_TESTS_SCRATCH_H

#include <stdbool.h>
#include <stddef.h>

/* A fresh folder; scratch_remove deletes it with all it holds and frees the name. */
char *scratch_make(void);
void scratch_remove(char *folder);

/* "<folder>/<name>"; the caller frees it. */
char *scratch_path(const char *folder, const char *name);

void scratch_write(const char *path, const void *bytes, size_t n_bytes);
/* The caller frees the bytes. */
unsigned char *scratch_read(const char *path, size_t *n_bytes);
bool scratch_exists(const char *path);
/* How many entries of the folder end with `suffix`. */
int scratch_count(const char *folder, const char *suffix);

#endif
