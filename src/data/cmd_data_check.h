/* `tmd data info FILE...` and `tmd data verify FILE...`. */
#ifndef TMD_DATA_CMD_DATA_CHECK_H
#define TMD_DATA_CMD_DATA_CHECK_H

/* argv[0] is "info" or "verify".  Both return an enum ExitCode. */
int cmd_data_info(int argc, char **argv);
int cmd_data_verify(int argc, char **argv);

#endif
