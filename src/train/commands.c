/* All subcommands, in the order in which `tmd help` lists them. */
#include "train/commands.h"

#include "data/cmd_ckpt.h"
#include "data/cmd_data.h"
#include "data/cmd_plot.h"
#include "data/cmd_wan.h"
#include "train/bench.h"
#include "train/cmd_config.h"
#include "train/cmd_eval.h"
#include "train/cmd_plan.h"
#include "train/cmd_sample.h"
#include "train/cmd_train.h"
#include "train/replay.h"

const struct Command commands[] = {
    {"data", "draw, cut, describe or verify datasets", cmd_data},
    {"import", "bring in a Wan2.1 folder", cmd_import},
    {"config", "print the resolved configuration, or every key", cmd_config},
    {"plan", "tell what a run would take on machines that are not at hand", cmd_plan},
    {"train", "train a stage, on one or many ranks", cmd_train},
    {"sample", "sample from a checkpoint into a dataset", cmd_sample},
    {"eval", "compare samplers with each other and with held-out clips", cmd_eval},
    {"plot", "draw the losses of runs as PNG", cmd_plot},
    {"ckpt", "describe or verify checkpoints", cmd_ckpt},
    {"export", "hand back a student or teacher in Wan's layout", cmd_export},
    {"bench", "time the machine, the operations and the steps", cmd_bench},
    {"replay", "evaluate a recorded step and compare it with what it should give", cmd_replay},
};
const int n_commands = sizeof commands / sizeof *commands;
