/* `tmd train`: reads the configuration, finds the other ranks, runs the trainer. */
#include "train/cmd_train.h"

#include "args.h"
#include "train/trainer.h"

static const struct ArgTable train_table = {
    .usage = "tmd train CONFIG [section.key=value ...]",
    .help = "Trains the stage that CONFIG names.  Overrides change single keys: out=runs/x,\n"
            "resume=auto, optimizer.lr=1e-5.  Under mpirun each rank takes a share of the batch.\n"
            "SIGTERM and SIGUSR1 write a checkpoint and end with exit code 75.",
    .min_operands = 1,
    .max_operands = -1,
};

static bool read_config(struct Config *config, const struct Operands *operands, struct Error *err) {
    config_init(config);
    bool ok = config_load(config, operands->items[0], err);
    for (int i = 1; ok && i < operands->n; i++) ok = config_override(config, operands->items[i], err);
    return ok && config_check(config, err) && config_check_run(config, err);
}

int cmd_train(int argc, char **argv) {
    struct Operands operands;
    struct Config config;
    struct Trainer trainer;
    struct Error err = {0};
    int exit_code;
    if (!args_begin(&train_table, argc, argv, NULL, &operands, &exit_code)) return exit_code;

    struct Comm *comm = comm_create(&err);
    if (!comm) return error_report(&err);
    bool ok = read_config(&config, &operands, &err);
    if (comm_agree(comm, ok, &err, &exit_code)) {
        if (trainer_open(&trainer, &config, comm, &exit_code)) exit_code = trainer_run(&trainer);
        trainer_close(&trainer);
    }
    config_free(&config);
    comm->destroy(comm);
    return exit_code;
}
