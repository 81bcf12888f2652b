/* What stands behind a communicator, with its version: for reports. */
#ifndef TMD_COMM_DESCRIBE_H
#define TMD_COMM_DESCRIBE_H

#include <stddef.h>

#include "train/comm.h"

/* "Open MPI v4.1.4", "NCCL 2.28.9", "one process", or the communicator's bare name where no library
 * is behind it.  The version is that of the library that runs, which need not be the one that the
 * program was built with. */
void comm_describe(const struct Comm *comm, char *text, size_t n_bytes);

/* The same of NCCL, in builds that have it. */
void comm_nccl_describe(char *text, size_t n_bytes);

#endif
