/* Choosing a communicator, and what all kinds share: agreeing on errors, dividing threads, counting
 * bytes. */
#include "train/comm.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kernels/backend.h"
#include "train/comm_mpi.h"
#include "train/comm_nccl.h"
#include "train/comm_tcp.h"
#include "train/rendezvous.h"

struct Comm *comm_create(struct Error *err) {
    static const char *const launchers[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK"};
    if (launch_wanted()) return comm_tcp_create(err);
    for (size_t i = 0; i < sizeof launchers / sizeof *launchers; i++)
        if (getenv(launchers[i])) return comm_mpi_create();
    return comm_self_create(NULL);
}

struct Comm *comm_for_backend(struct Comm *host, const struct Backend *be) {
    if (host->n_ranks == 1) return comm_self_create(be);
    return strcmp(be->name, "cuda") == 0 ? comm_nccl_create(host, be) : host;
}

/* The lowest rank that is not ok, or n_ranks. */
static int first_failed(struct Comm *comm, bool ok) {
    double *failed = xcalloc((size_t)comm->n_ranks * sizeof *failed);
    if (!ok) failed[comm->rank] = 1;
    comm->sum_f64(comm, failed, comm->n_ranks);
    int first = 0;
    while (first < comm->n_ranks && failed[first] == 0.0) first++;
    free(failed);
    return first;
}

bool comm_share_error(struct Comm *comm, bool ok, struct Error *err) {
    int first = first_failed(comm, ok);
    if (first < comm->n_ranks) comm->broadcast(comm, err, sizeof *err, first);
    return first == comm->n_ranks;
}

bool comm_agree(struct Comm *comm, bool ok, const struct Error *err, int *exit_code) {
    int first = first_failed(comm, ok);
    if (first == comm->n_ranks) return true;
    if (first == comm->rank) {
        *exit_code = err->exit_code;
        error_report(err);
    }
    comm->broadcast(comm, exit_code, sizeof *exit_code, first);
    return false;
}

_Noreturn void comm_fail(struct Comm *comm, const struct Error *err) {
    fprintf(stderr, "tmd: rank %d: %s\n", comm->rank, err->text);
    fatal_end_all_ranks(err->exit_code);
}

void comm_share_threads(int n_local) {
    if (getenv("OMP_NUM_THREADS")) return;
    /* mpirun may have bound this rank to its own cores already; then those are its share */
    int usable = omp_get_num_procs(), online = (int)sysconf(_SC_NPROCESSORS_ONLN);
    int share = usable < online ? usable : online / n_local;
    omp_set_num_threads(share > 1 ? share : 1);
}

CommTicket comm_count_ring(struct Comm *comm, int rounds, int64_t n_bytes) {
    comm->sent_bytes += rounds * (comm->n_ranks - 1) * n_bytes / comm->n_ranks;
    return ++comm->last_ticket;
}

CommTicket comm_count_exchange(struct Comm *comm, const struct CommPart *send_parts) {
    for (int rank = 0; rank < comm->n_ranks; rank++)
        if (rank != comm->rank) comm->sent_bytes += send_parts[rank].n_bytes;
    return ++comm->last_ticket;
}

int comm_split_group(const struct Comm *comm, int n_ranks, int stride) {
    TMD_CHECK(n_ranks > 0 && stride > 0 && comm->n_ranks % (n_ranks * stride) == 0,
              "%d ranks split into groups of %d, every %d-th", comm->n_ranks, n_ranks, stride);
    return comm->rank / (n_ranks * stride) * stride + comm->rank % stride;
}
