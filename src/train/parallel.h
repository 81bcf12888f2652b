/* The communicators of a run: which ranks sum, gather and exchange with each other (rank_grid.h). */
#ifndef TMD_PARALLEL_H
#define TMD_PARALLEL_H

#include "train/comm.h"
#include "train/rank_grid.h"

/* A group of one rank is NULL. */
struct Parallel {
    struct RankGrid grid;
    struct Comm *world;    /* all ranks, maybe one */
    struct Comm *shares;   /* those that hold a replica together, in the order of their shares */
    struct Comm *replicas; /* those that hold the same share */
    struct Comm *parts;    /* those that share a sample's tokens, in the order of their parts */
};

/* Splits `world`, which works on device memory and outlives it; collective. */
void parallel_open(struct Parallel *parallel, const struct RankGrid *grid, struct Comm *world);
/* Sent by this rank so far (comm.h), in all groups. */
int64_t parallel_sent_bytes(const struct Parallel *parallel);
/* Harmless on zeros. */
void parallel_close(struct Parallel *parallel);

#endif
