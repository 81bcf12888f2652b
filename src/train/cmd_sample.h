/* `tmd sample`: a data set of samples from a trained network, with a contact sheet. */
#ifndef TMD_CMD_SAMPLE_H
#define TMD_CMD_SAMPLE_H

int cmd_sample(int argc, char **argv);

#endif
