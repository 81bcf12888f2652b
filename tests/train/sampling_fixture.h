/* A world small enough for tests of samplers: drawn clips, a configuration, a run of three
 * iterations. */
#ifndef TMD_TESTS_SAMPLING_FIXTURE_H
#define TMD_TESTS_SAMPLING_FIXTURE_H

#include "train/config.h"

enum { WORLD_TRAIN_CLIPS = 16, WORLD_HELDOUT_CLIPS = 256 };

/* Files in a fresh folder: shapes.h5, heldout.h5 (toy text), tiny.yaml (a teacher's run with
 * previews at iterations 2 and 3), run/ (what training by it left). */
struct World {
    char *folder;
};

struct World world_make(void);
void world_remove(struct World world);
/* "<folder>/<name>"; valid until the next call but seven. */
const char *world_path(struct World world, const char *name);

/* tiny.yaml with overrides, the last of which is NULL. */
void world_config(struct World world, struct Config *config, const char *const *overrides);

/* A command's exit code; the last argument is NULL.  `run` gets all of them as its argv. */
int world_command(int (*run)(int argc, char **argv), ...);

#endif
