/* `tmd data ...`: making, describing and verifying datasets. */
#ifndef TMD_DATA_CMD_DATA_H
#define TMD_DATA_CMD_DATA_H

/* argv[0] is "data", argv[1] the command.  Returns an enum ExitCode. */
int cmd_data(int argc, char **argv);

#endif
