/* `tmd plan CONFIG... [section.key=value ...] --gpus N --gpu NAME --network NAME`, and with --sweep
 * or several --gpus the comparison of many such plans. */
#ifndef TMD_CMD_PLAN_H
#define TMD_CMD_PLAN_H

int cmd_plan(int argc, char **argv);

#endif
