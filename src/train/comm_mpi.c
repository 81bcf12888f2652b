/* Ranks over MPI, buffers in host memory.
 *
 * Sums are MPI_Iallreduce, started as soon as a unit's gradient is complete.  Open MPI moves them only
 * while the process is inside MPI, hence the MPI_Testsome whenever another one starts. */
#include <mpi.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "train/comm.h"

enum { MAX_SUMS = 256, MAX_SUM_ELEMS = 1 << 28 };

struct MpiState {
    MPI_Request requests[MAX_SUMS];
    int n_requests;
};

#define MPI_CALL(call)                                                                             \
    do {                                                                                           \
        int mpi_status_ = (call);                                                                  \
        TMD_CHECK(mpi_status_ == MPI_SUCCESS, "MPI error %d", mpi_status_);                        \
    } while (0)

static void mpi_sums_finish(struct Comm *comm) {
    struct MpiState *state = comm->state;
    MPI_CALL(MPI_Waitall(state->n_requests, state->requests, MPI_STATUSES_IGNORE));
    state->n_requests = 0;
}

static void mpi_sum_start(struct Comm *comm, float *buffer, int64_t n_elems) {
    struct MpiState *state = comm->state;
    for (int64_t at = 0; at < n_elems; at += MAX_SUM_ELEMS) {
        if (state->n_requests == MAX_SUMS) mpi_sums_finish(comm);
        int n = (int)(n_elems - at < MAX_SUM_ELEMS ? n_elems - at : MAX_SUM_ELEMS);
        MPI_CALL(MPI_Iallreduce(MPI_IN_PLACE, buffer + at, n, MPI_FLOAT, MPI_SUM, MPI_COMM_WORLD,
                                &state->requests[state->n_requests++]));
    }
    int done, indices[MAX_SUMS];
    MPI_CALL(MPI_Testsome(state->n_requests, state->requests, &done, indices, MPI_STATUSES_IGNORE));
}

/* Sums to one rank and broadcasts, so that every rank has the same bits whatever the algorithm. */
static void mpi_sum_f64(struct Comm *comm, double *host, int64_t n_elems) {
    int n = (int)n_elems;
    MPI_CALL(MPI_Reduce(comm->rank ? host : MPI_IN_PLACE, host, n, MPI_DOUBLE, MPI_SUM, 0,
                        MPI_COMM_WORLD));
    MPI_CALL(MPI_Bcast(host, n, MPI_DOUBLE, 0, MPI_COMM_WORLD));
}

static void mpi_broadcast(struct Comm *comm, void *host, int64_t n_bytes, int root) {
    (void)comm;
    enum { PART = 1 << 30 };
    for (int64_t at = 0; at < n_bytes; at += PART) {
        int n = (int)(n_bytes - at < PART ? n_bytes - at : PART);
        MPI_CALL(MPI_Bcast((char *)host + at, n, MPI_BYTE, root, MPI_COMM_WORLD));
    }
}

static void mpi_destroy(struct Comm *comm) {
    fatal_set_handler(comm->rank, NULL);
    MPI_Finalize();
    free(comm->state);
    free(comm);
}

static void mpi_end_all_ranks(int exit_code) {
    MPI_Abort(MPI_COMM_WORLD, exit_code);
}

/* This rank's place among those of its host. */
static void count_local(int *local_rank, int *n_local) {
    MPI_Comm host;
    MPI_CALL(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &host));
    MPI_CALL(MPI_Comm_rank(host, local_rank));
    MPI_CALL(MPI_Comm_size(host, n_local));
    MPI_CALL(MPI_Comm_free(&host));
}

/* An even share of this host's processors, at least one. */
static void share_threads(int n_local) {
    if (getenv("OMP_NUM_THREADS")) return;
    /* mpirun may have bound this rank to its own cores already; then those are its share */
    int usable = omp_get_num_procs(), online = (int)sysconf(_SC_NPROCESSORS_ONLN);
    int share = usable < online ? usable : online / n_local;
    omp_set_num_threads(share > 1 ? share : 1);
}

static struct Comm *comm_mpi_create(void) {
    int provided;
    MPI_CALL(MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided));
    struct Comm *comm = xcalloc(sizeof *comm);
    *comm = (struct Comm){.name = "mpi",
                          .state = xcalloc(sizeof(struct MpiState)),
                          .sum_start = mpi_sum_start,
                          .sums_finish = mpi_sums_finish,
                          .sum_f64 = mpi_sum_f64,
                          .broadcast = mpi_broadcast,
                          .destroy = mpi_destroy};
    MPI_CALL(MPI_Comm_rank(MPI_COMM_WORLD, &comm->rank));
    MPI_CALL(MPI_Comm_size(MPI_COMM_WORLD, &comm->n_ranks));
    fatal_set_handler(comm->rank, mpi_end_all_ranks);
    int n_local;
    count_local(&comm->local_rank, &n_local);
    share_threads(n_local);
    return comm;
}

struct Comm *comm_create(void) {
    static const char *const launchers[] = {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK"};
    for (size_t i = 0; i < sizeof launchers / sizeof *launchers; i++)
        if (getenv(launchers[i])) return comm_mpi_create();
    return comm_self_create();
}

bool comm_agree(struct Comm *comm, bool ok, const struct Error *err, int *exit_code) {
    /* failed[r] != 0: rank r failed, with that exit code */
    double *failed = xcalloc((size_t)comm->n_ranks * sizeof *failed);
    if (!ok) failed[comm->rank] = err->exit_code;
    comm->sum_f64(comm, failed, comm->n_ranks);
    int first = 0;
    while (first < comm->n_ranks && failed[first] == 0.0) first++;
    bool all_ok = first == comm->n_ranks;
    if (!all_ok) *exit_code = (int)failed[first];
    if (first == comm->rank) error_report(err);
    free(failed);
    return all_ok;
}

_Noreturn void comm_fail(struct Comm *comm, const struct Error *err) {
    fprintf(stderr, "tmd: rank %d: %s\n", comm->rank, err->text);
    fflush(NULL);
    if (comm->n_ranks > 1) mpi_end_all_ranks(err->exit_code);
    exit(err->exit_code);
}
