/* `tmd import` and `tmd export`: Wan weights in and out (wan_import.h, wan_export.h). */
#ifndef TMD_DATA_CMD_WAN_H
#define TMD_DATA_CMD_WAN_H

/* argv[0] is "import" or "export".  They return an enum ExitCode; errors are printed. */
int cmd_import(int argc, char **argv);
int cmd_export(int argc, char **argv);

#endif
