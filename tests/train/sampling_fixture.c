/* Writes a configuration, draws data and trains a few iterations through the commands themselves. */
#include "sampling_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../data/scratch.h"
#include "data/cmd_data_shapes.h"
#include "train/cmd_train.h"

enum { MAX_ARGUMENTS = 32, N_PATHS = 8 };

static const char *const yaml = "model:\n"
                                "  dim: 24\n"
                                "  ffn_dim: 32\n"
                                "  num_heads: 2\n"
                                "  num_layers: 3\n"
                                "  freq_dim: 16\n"
                                "  text_dim: 8\n"
                                "  text_len: 6\n"
                                "  in_dim: 3\n"
                                "  out_dim: 3\n"
                                "  patch_size: [1, 4, 4]\n"
                                "student:\n"
                                "  head_blocks: 1\n"
                                "discriminator:\n"
                                "  features: [2]\n"
                                "ema:\n"
                                "  decay: 0.5\n"
                                "optimizer:\n"
                                "  lr: 0.01\n"
                                "train:\n"
                                "  iterations: 3\n"
                                "  global_batch: 4\n"
                                "  micro_batch: 2\n"
                                "preview:\n"
                                "  every: 2\n"
                                "  count: 3\n"
                                "sampler:\n"
                                "  steps: 2\n";

const char *world_path(struct World world, const char *name) {
    static char paths[N_PATHS][4096];
    static int next;
    next = (next + 1) % N_PATHS;
    snprintf(paths[next], sizeof paths[next], "%s/%s", world.folder, name);
    return paths[next];
}

int world_command(int (*run)(int argc, char **argv), ...) {
    char *argv[MAX_ARGUMENTS], *owned[MAX_ARGUMENTS];
    int argc = 0;
    va_list arguments;
    va_start(arguments, run);
    for (const char *word; (word = va_arg(arguments, const char *));) {
        assert_true(argc < MAX_ARGUMENTS - 1);
        owned[argc] = argv[argc] = xstrdup(word);
        argc++;
    }
    va_end(arguments);
    argv[argc] = NULL;
    int exit_code = run(argc, argv);
    for (int i = 0; i < argc; i++) free(owned[i]); /* argv may have been reordered */
    return exit_code;
}

static void write_config(struct World world) {
    char *text = xprintf("%sdata:\n  files: [%s]\nout: %s\n", yaml, world_path(world, "shapes.h5"),
                         world_path(world, "run"));
    scratch_write(world_path(world, "tiny.yaml"), text, strlen(text));
    free(text);
}

struct World world_make(void) {
    struct World world = {scratch_make()};
    char n_train[16], n_heldout[16];
    snprintf(n_train, sizeof n_train, "%d", WORLD_TRAIN_CLIPS);
    snprintf(n_heldout, sizeof n_heldout, "%d", WORLD_HELDOUT_CLIPS);
    assert_int_equal(world_command(cmd_data_shapes, "shapes", "--out",
                                   world_path(world, "shapes.h5"), "--count", n_train, "--holdout",
                                   world_path(world, "heldout.h5"), "--holdout-count", n_heldout,
                                   "--frames", "2", "--height", "12", "--width", "12", "--text-dim",
                                   "8", NULL),
                     EXIT_OK);
    write_config(world);
    assert_int_equal(world_command(cmd_train, "train", world_path(world, "tiny.yaml"), NULL),
                     EXIT_OK);
    return world;
}

void world_remove(struct World world) {
    scratch_remove(world.folder);
}

void world_config(struct World world, struct Config *config, const char *const *overrides) {
    struct Error err;
    config_init(config);
    if (!config_load(config, world_path(world, "tiny.yaml"), &err)) fail_msg("%s", err.text);
    for (; overrides && *overrides; overrides++)
        if (!config_override(config, *overrides, &err)) fail_msg("%s", err.text);
    if (!config_check(config, &err)) fail_msg("%s", err.text);
}
