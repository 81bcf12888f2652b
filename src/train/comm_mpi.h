/* Ranks over MPI, buffers in host memory. */
#ifndef TMD_COMM_MPI_H
#define TMD_COMM_MPI_H

#include "train/comm.h"

/* Of all ranks that the launcher started; begins MPI, which its `destroy` ends. */
struct Comm *comm_mpi_create(void);

#endif
