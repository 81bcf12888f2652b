/* Copies of recorded cases that tests damage and replay. */
#ifndef TMD_TESTS_REPLAY_FIXTURE_H
#define TMD_TESTS_REPLAY_FIXTURE_H

#include "train/replay.h"

/* The files that a case may have. */
enum { CASE_FILES = 7 };
extern const char *const case_files[CASE_FILES];

/* A copy of a recorded case that may be damaged. */
struct CaseCopy {
    char *scratch, *folder;
};

/* What becomes of a tensor. */
enum Edit {
    EDIT_NONE,
    EDIT_NUDGE,
    EDIT_NAN,
    EDIT_EARLY, /* times near 0 */
    EDIT_DROP,
    EDIT_ADD,
    EDIT_RESHAPE, /* a dimension more, in front */
    EDIT_EMPTY,
    EDIT_INTEGERS,
    EDIT_REALS
};

struct CaseCopy case_copy_make(const char *name);
void case_copy_remove(struct CaseCopy *c);
/* The path of one of its files, which the caller frees. */
char *case_copy_file(const struct CaseCopy *c, const char *name);

/* The exit code of `tmd replay FOLDER [flag value]`; *message (the caller frees it) gets what it
 * prints. */
int replay_command(const struct CaseCopy *c, const char *flag, const char *value, char **message);

/* Its exit code without a flag. */
void assert_replay(const struct CaseCopy *c, int expected_code);

/* Exit code 2, and one sentence with both words. */
void assert_refused(const struct CaseCopy *c, const char *word, const char *other_word);

/* Rewrites a file of the case, tensor `name` edited (EDIT_ADD: added): integers as I64, else
 * float32. */
void replay_edit(const struct CaseCopy *c, const char *file, const char *name, enum Edit edit);

/* Replaces the first `from` in a file of the case, or in case.yaml, by `to`, which is as long. */
void replay_edit_text(const struct CaseCopy *c, const char *file, const char *from, const char *to);
void replay_edit_configuration(const struct CaseCopy *c, const char *from, const char *to);

#endif
