/* `tmd plot RUN... --out FILE`: the curves of runs as a picture. */
#ifndef TMD_DATA_CMD_PLOT_H
#define TMD_DATA_CMD_PLOT_H

/* argv[0] is "plot".  Returns an enum ExitCode. */
int cmd_plot(int argc, char **argv);

#endif
