/* How ranks that were started without MPI learn who they are, and find each other.
 *
 * $TMD_RENDEZVOUS names the place:
 *     tcp://HOST:PORT    rank 0 runs on HOST and listens there
 *     file://PATH        a file that all ranks see; rank 0 puts its address there while it waits
 * Rank and number of ranks come from the launcher's environment: the first of
 *     TMD_RANK                TMD_WORLD_SIZE         TMD_LOCAL_RANK
 *     OMPI_COMM_WORLD_RANK    OMPI_COMM_WORLD_SIZE   OMPI_COMM_WORLD_LOCAL_RANK    (mpirun)
 *     RANK                    WORLD_SIZE             LOCAL_RANK                    (torchrun)
 *     SLURM_PROCID            SLURM_NTASKS           SLURM_LOCALID                 (srun)
 * that is set.  The third may be missing.
 *
 * $TMD_JOB tells one job from others: an address that another one left in the file is ignored.
 * Without it the names that Slurm or torchrun give the job stand for it.  An address of an earlier
 * try of the same job does no harm either, for nobody answers there.  $TMD_RENDEZVOUS_SECONDS (60):
 * how long to wait for each other. */
#ifndef TMD_RENDEZVOUS_H
#define TMD_RENDEZVOUS_H

#include "train/star.h"

struct Launch {
    int rank, n_ranks;
    int local_rank;    /* -1: not told */
    const char *place; /* $TMD_RENDEZVOUS */
    char job[256];     /* "": not told */
    double seconds;
};

/* Whether the environment asks for a rendezvous. */
bool launch_wanted(void);

/* Reads the environment.  Fails where variables are missing, or contradict each other. */
bool launch_read(struct Launch *launch, struct Error *err);

/* Connects all ranks; collective.  Fails on every rank if one does not come. */
bool rendezvous(const struct Launch *launch, struct Star *star, struct Error *err);

#endif
