#include "train/commands.h"

#include "train/cmd_config.h"
#include "train/replay.h"

const struct Command commands[] = {
    {"config", "print the resolved configuration, or every key", cmd_config},
    {"replay", "evaluate a recorded step and compare it with what it should give", cmd_replay},
};
const int n_commands = sizeof commands / sizeof *commands;
