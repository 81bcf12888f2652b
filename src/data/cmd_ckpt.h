/* `tmd ckpt info PATH [--tensors]` and `tmd ckpt verify PATH...`: what checkpoints hold, and
 * whether they are intact. */
#ifndef TMD_DATA_CMD_CKPT_H
#define TMD_DATA_CMD_CKPT_H

/* argv[0] is "ckpt".  Returns an enum ExitCode; errors are printed. */
int cmd_ckpt(int argc, char **argv);

#endif
