/* `tmd train CONFIG [section.key=value ...]`, alone or under mpirun. */
#ifndef TMD_CMD_TRAIN_H
#define TMD_CMD_TRAIN_H

int cmd_train(int argc, char **argv);

#endif
