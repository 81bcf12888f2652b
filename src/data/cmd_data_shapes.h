/* `tmd data shapes --out FILE --count N`: the captioned toy world of shapes.h as a dataset. */
#ifndef TMD_DATA_CMD_DATA_SHAPES_H
#define TMD_DATA_CMD_DATA_SHAPES_H

/* argv[0] is "shapes".  Returns an enum ExitCode. */
int cmd_data_shapes(int argc, char **argv);

#endif
