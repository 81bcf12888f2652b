/* Communicators whose ranks are threads of the test: what is written against struct Comm can be
 * tested with any number of them, without MPI.  They have what happens in host memory. */
#ifndef TMD_TESTS_THREAD_RANKS_H
#define TMD_TESTS_THREAD_RANKS_H

#include "train/comm.h"

enum { THREAD_RANKS_MAX = 8 };

/* Runs body(comm, context) on each of n_ranks ranks; returns when all have. */
void thread_ranks_run(int n_ranks, void (*body)(struct Comm *comm, void *context), void *context);

#endif
