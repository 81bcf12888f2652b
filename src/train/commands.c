#include "train/commands.h"

#include "data/cmd_data_shapes.h"
#include "train/cmd_config.h"
#include "train/cmd_train.h"
#include "train/replay.h"

const struct Command commands[] = {
    {"config", "print the resolved configuration, or every key", cmd_config},
    {"shapes", "", cmd_data_shapes},
    {"train", "train a stage", cmd_train},
    {"replay", "evaluate a recorded step and compare it with what it should give", cmd_replay},
};
const int n_commands = sizeof commands / sizeof *commands;
