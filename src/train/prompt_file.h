/* Files of prompts: UTF-8, one a line; empty lines and those that begin with # are left out. */
#ifndef TMD_PROMPT_FILE_H
#define TMD_PROMPT_FILE_H

#include <stdint.h>

#include "error.h"

enum { PROMPT_FILE_MAX_BYTES = 16 << 20 };

struct PromptFile {
    char *text;   /* the file, with NULs at the ends of lines */
    char **lines; /* [n], into text */
    int64_t n;    /* at least 1 */
};

bool prompt_file_read(struct PromptFile *file, const char *path, struct Error *err);
/* Harmless on zeros and after an error. */
void prompt_file_free(struct PromptFile *file);

#endif
