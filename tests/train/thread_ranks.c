/* Ranks are threads: each puts the address of its buffer on a common table and waits at a barrier. */
#include "thread_ranks.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* What the ranks share: where each has the buffer of the operation at work. */
struct Meeting {
    pthread_barrier_t barrier;
    void *buffers[THREAD_RANKS_MAX];
};

struct Thread {
    pthread_t thread;
    struct Comm comm;
    void (*body)(struct Comm *comm, void *context);
    void *context;
};

static struct Meeting *meet(struct Comm *comm, void *buffer) {
    struct Meeting *meeting = comm->state;
    meeting->buffers[comm->rank] = buffer;
    pthread_barrier_wait(&meeting->barrier);
    return meeting;
}

static void broadcast(struct Comm *comm, void *host, int64_t n_bytes, int root) {
    struct Meeting *meeting = meet(comm, host);
    if (comm->rank != root) memcpy(host, meeting->buffers[root], (size_t)n_bytes);
    pthread_barrier_wait(&meeting->barrier);
}

static void sum_f64(struct Comm *comm, double *host, int64_t n_elems) {
    struct Meeting *meeting = meet(comm, host);
    double *sums = xcalloc((size_t)n_elems * sizeof *sums);
    for (int r = 0; r < comm->n_ranks; r++)
        for (int64_t i = 0; i < n_elems; i++) sums[i] += ((const double *)meeting->buffers[r])[i];
    pthread_barrier_wait(&meeting->barrier);
    memcpy(host, sums, (size_t)n_elems * sizeof *sums);
    free(sums);
    pthread_barrier_wait(&meeting->barrier);
}

static void *start(void *argument) {
    struct Thread *thread = argument;
    thread->body(&thread->comm, thread->context);
    return NULL;
}

void thread_ranks_run(int n_ranks, void (*body)(struct Comm *comm, void *context), void *context) {
    struct Meeting meeting;
    struct Thread threads[THREAD_RANKS_MAX];
    TMD_CHECK(n_ranks <= THREAD_RANKS_MAX, "%d ranks", n_ranks);
    pthread_barrier_init(&meeting.barrier, NULL, (unsigned)n_ranks);
    for (int r = 0; r < n_ranks; r++) {
        threads[r] = (struct Thread){.comm = {.name = "threads",
                                              .rank = r,
                                              .n_ranks = n_ranks,
                                              .local_rank = r,
                                              .state = &meeting,
                                              .sum_f64 = sum_f64,
                                              .broadcast = broadcast},
                                     .body = body,
                                     .context = context};
        int status = pthread_create(&threads[r].thread, NULL, start, &threads[r]);
        TMD_CHECK(status == 0, "thread %d: %s", r, strerror(status));
    }
    for (int r = 0; r < n_ranks; r++) pthread_join(threads[r].thread, NULL);
    pthread_barrier_destroy(&meeting.barrier);
}
