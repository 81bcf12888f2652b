/* `tmd eval`: samplers against each other and against held-out clips, from the same noise. */
#ifndef TMD_CMD_EVAL_H
#define TMD_CMD_EVAL_H

int cmd_eval(int argc, char **argv);

#endif
