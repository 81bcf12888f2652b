/* What the emulated NCCL refuses: by a status where NCCL would return one, or by the end of the
 * program; and how it ends waiting for a peer that is gone.  What it computes is tested by
 * tests/train/test_comm.c. */
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <nccl.h>

#include "child.h"

enum { N = 64 };

/* Of the process that a body runs in; a mistake ends it. */
struct Rank {
    ncclComm_t comm;
    cudaStream_t stream;
    float *device; /* [N] */
};

static void rank_begin_as(struct Rank *rank, ncclUniqueId id, int index, int n_ranks) {
    if (ncclCommInitRank(&rank->comm, n_ranks, id, index) != ncclSuccess ||
        cudaStreamCreateWithFlags(&rank->stream, cudaStreamNonBlocking) != cudaSuccess ||
        cudaMalloc((void **)&rank->device, N * sizeof(float)) != cudaSuccess ||
        cudaMemsetAsync(rank->device, 0, N * sizeof(float), rank->stream) != cudaSuccess)
        exit(1);
}

static ncclUniqueId new_id(void) {
    ncclUniqueId id;
    if (ncclGetUniqueId(&id) != ncclSuccess) exit(1);
    return id;
}

static void rank_begin(struct Rank *rank) {
    rank_begin_as(rank, new_id(), 0, 1);
}

static ncclResult_t all_reduce(const struct Rank *r, size_t n_elems) {
    return ncclAllReduce(r->device, r->device, n_elems, ncclFloat, ncclSum, r->comm, r->stream);
}

static bool rank_end(struct Rank *rank) {
    return cudaStreamSynchronize(rank->stream) == cudaSuccess &&
           ncclCommDestroy(rank->comm) == ncclSuccess && cudaFree(rank->device) == cudaSuccess &&
           cudaStreamDestroy(rank->stream) == cudaSuccess;
}

/* ---- mistakes that end the program ---- */

static bool reduce_beside_its_place(void) {
    struct Rank r;
    rank_begin(&r);
    ncclReduceScatter(r.device, r.device + 1, N / 2, ncclFloat, ncclSum, r.comm, r.stream);
    return rank_end(&r);
}

static bool gather_beside_its_place(void) {
    struct Rank r;
    rank_begin(&r);
    ncclAllGather(r.device + 1, r.device, N / 2, ncclFloat, r.comm, r.stream);
    return rank_end(&r);
}

static bool gather_past_the_end(void) {
    struct Rank r;
    rank_begin(&r);
    ncclAllGather(r.device, r.device, 4 * N + 4, ncclInt8, r.comm, r.stream);
    return rank_end(&r);
}

static bool send_host_memory(void) {
    struct Rank r;
    float host[N] = {0};
    rank_begin(&r);
    ncclSend(host, N, ncclFloat, 0, r.comm, r.stream);
    return rank_end(&r);
}

/* A send and a receive of so many elements in one group. */
static bool exchange(int64_t send_at, size_t n_send, int64_t receive_at, size_t n_receive) {
    struct Rank r;
    rank_begin(&r);
    ncclGroupStart();
    ncclSend(r.device + send_at, n_send, ncclFloat, 0, r.comm, r.stream);
    ncclRecv(r.device + receive_at, n_receive, ncclFloat, 0, r.comm, r.stream);
    return ncclGroupEnd() == ncclSuccess && rank_end(&r);
}
static bool exchange_well(void) {
    return exchange(0, 8, 8, 8);
}
static bool exchange_onto_itself(void) {
    return exchange(0, 8, 7, 8);
}
static bool exchange_of_two_lengths(void) {
    return exchange(0, 8, 8, 9);
}

static bool send_to_nobody(void) {
    struct Rank r;
    rank_begin(&r);
    ncclSend(r.device, 8, ncclFloat, 0, r.comm, r.stream);
    return rank_end(&r);
}

static bool collective_in_a_group(void) {
    struct Rank r;
    rank_begin(&r);
    ncclGroupStart();
    all_reduce(&r, N);
    return ncclGroupEnd() == ncclSuccess && rank_end(&r);
}

static bool split_while_busy(void) {
    struct Rank r;
    ncclComm_t part;
    rank_begin(&r);
    all_reduce(&r, N);
    ncclCommSplit(r.comm, 0, 0, &part, NULL);
    return rank_end(&r);
}

static bool destroy_while_busy(void) {
    struct Rank r;
    rank_begin(&r);
    all_reduce(&r, N);
    ncclCommDestroy(r.comm);
    return true;
}

static void test_mistakes_end_the_program(void **state) {
    (void)state;
    expect_true_with("TMD_EMULATED_STRICT", "1", exchange_well);
    expect_rejected(reduce_beside_its_place, "ncclReduceScatter: send and receive buffers overlap");
    expect_rejected(gather_beside_its_place, "ncclAllGather: send and receive buffers overlap");
    expect_rejected(gather_past_the_end, "ncclAllGather: send buffer");
    expect_rejected(send_host_memory, "ncclSend: its buffer");
    expect_rejected(exchange_onto_itself, "ncclRecv: its buffer overlaps another's of the group");
    expect_rejected(exchange_of_two_lengths,
                    "rank 0 expects 36 bytes of type 7 from rank 0, which sends 32");
    expect_rejected(send_to_nobody, "rank 0 has not received all that rank 0 sent it");
    expect_rejected(collective_in_a_group, "ncclAllReduce in a group");
    expect_rejected(split_while_busy, "ncclCommSplit: 1 operations");
    expect_rejected(destroy_while_busy, "ncclCommDestroy: 1 operations");
}

/* ---- mistakes that a status tells ---- */

static bool statuses(void) {
    struct Rank r;
    ncclComm_t part;
    rank_begin(&r);
    bool ok = ncclGroupEnd() == ncclInvalidUsage &&
              ncclSend(r.device, 1, ncclFloat, 1, r.comm, r.stream) == ncclInvalidArgument &&
              ncclRecv(r.device, 1, ncclFloat, -1, r.comm, r.stream) == ncclInvalidArgument &&
              ncclReduceScatter(r.device, r.device, 1, ncclInt8, ncclSum, r.comm, r.stream) ==
                  ncclInvalidArgument &&
              ncclCommSplit(r.comm, -2, 0, &part, NULL) == ncclInvalidArgument &&
              ncclCommSplit(r.comm, NCCL_SPLIT_NOCOLOR, 0, &part, NULL) == ncclSuccess && !part;
    return ok && rank_end(&r);
}

static bool says(ncclComm_t comm, ncclResult_t expected) {
    ncclResult_t status;
    return ncclCommGetAsyncError(comm, &status) == ncclSuccess && status == expected;
}

/* The second operation breaks, when it happens; nothing can follow it. */
static bool second_breaks(void) {
    struct Rank r;
    rank_begin(&r);
    for (int i = 0; i < 2; i++)
        if (all_reduce(&r, N) != ncclSuccess) return false;
    bool ok = says(r.comm, ncclSuccess) && cudaStreamSynchronize(r.stream) == cudaSuccess &&
              says(r.comm, ncclRemoteError) && all_reduce(&r, N) == ncclRemoteError;
    return ok && rank_end(&r);
}

static void test_mistakes_are_told(void **state) {
    (void)state;
    expect_true_with("TMD_EMULATED_STRICT", "1", statuses);
    expect_true_with("TMD_EMULATED_NCCL_FAULT", "2", second_breaks);
}

/* ---- two ranks ---- */

/* In the process of a body: rank 0; rank 1 is a process that does something else. */
static pid_t begin_pair(struct Rank *first, void (*second)(struct Rank *second)) {
    ncclUniqueId id = new_id();
    alarm(30); /* rather than to wait for ever for each other */
    pid_t peer = fork();
    if (peer < 0) exit(1);
    if (peer == 0) {
        struct Rank r;
        alarm(30);
        rank_begin_as(&r, id, 1, 2);
        second(&r);
        _exit(0);
    }
    rank_begin_as(first, id, 0, 2);
    return peer;
}

static void reduce_half(struct Rank *r) {
    all_reduce(r, N / 2);
    cudaStreamSynchronize(r->stream);
}
static void gather(struct Rank *r) {
    ncclAllGather(r->device + N / 2, r->device, N / 2, ncclFloat, r->comm, r->stream);
    cudaStreamSynchronize(r->stream);
}
static void be_killed(struct Rank *r) {
    (void)r;
    raise(SIGKILL);
}
static void stand_still(struct Rank *r) {
    (void)r;
    pause();
}

static bool reduce_with(void (*second)(struct Rank *second)) {
    struct Rank r;
    begin_pair(&r, second);
    all_reduce(&r, N);
    return rank_end(&r);
}
static bool of_two_lengths(void) {
    return reduce_with(reduce_half);
}
static bool of_two_kinds(void) {
    return reduce_with(gather);
}

/* Two threads, for processes, join as these. */
struct Joining {
    ncclUniqueId id;
    int rank, n_ranks;
};

static void *join(void *context) {
    struct Joining *j = context;
    ncclComm_t comm;
    ncclCommInitRank(&comm, j->n_ranks, j->id, j->rank);
    return NULL;
}

static bool join_as(int other_rank, int other_n_ranks) {
    struct Joining one = {new_id(), 0, 2}, other = {one.id, other_rank, other_n_ranks};
    pthread_t thread;
    if (pthread_create(&thread, NULL, join, &other) != 0) return false;
    join(&one);
    return pthread_join(thread, NULL) == 0;
}
static bool the_same_rank_twice(void) {
    return join_as(0, 2);
}
static bool one_of_three(void) {
    return join_as(1, 3);
}

static bool without_an_id(void) {
    struct Joining alone = {.n_ranks = 1};
    join(&alone);
    return true;
}

static void test_ranks_must_agree(void **state) {
    (void)state;
    expect_rejected(of_two_lengths,
                    "ncclAllReduce: rank 0 expects 256 bytes of type 7 from rank 1, "
                    "which sends 128 of type 7 in ncclAllReduce");
    expect_rejected(of_two_kinds, "which sends 128 of type 7 in ncclAllGather");
    expect_rejected(the_same_rank_twice, "rank 0 is there already");
    expect_rejected(one_of_three, "rank 0 of 2 meets rank 1 of 3");
    expect_rejected(without_an_id, "what rank 0 has is no unique id");
}

static bool peer_is_killed(void) {
    struct Rank r;
    int status;
    pid_t peer = begin_pair(&r, be_killed);
    bool ok = all_reduce(&r, N) == ncclSuccess && cudaStreamSynchronize(r.stream) == cudaSuccess &&
              says(r.comm, ncclRemoteError) && all_reduce(&r, N) == ncclRemoteError;
    return waitpid(peer, &status, 0) == peer && ok && rank_end(&r);
}

static void *abort_soon(void *context) {
    usleep(100000);
    ncclCommAbort(context);
    return NULL;
}

/* While an operation waits for a peer that never comes, and another stands behind it. */
static bool aborted(void) {
    struct Rank r;
    int status;
    pthread_t thread;
    pid_t peer = begin_pair(&r, stand_still);
    bool ok = all_reduce(&r, N) == ncclSuccess && all_reduce(&r, N) == ncclSuccess &&
              pthread_create(&thread, NULL, abort_soon, r.comm) == 0 &&
              cudaStreamSynchronize(r.stream) == cudaSuccess && pthread_join(thread, NULL) == 0;
    kill(peer, SIGKILL);
    return waitpid(peer, &status, 0) == peer && ok && cudaFree(r.device) == cudaSuccess &&
           cudaStreamDestroy(r.stream) == cudaSuccess;
}

static void test_waiting_ends(void **state) {
    (void)state;
    expect_true_with("TMD_EMULATED_STRICT", "1", peer_is_killed);
    expect_true_with("TMD_EMULATED_STRICT", "1", aborted);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mistakes_end_the_program),
        cmocka_unit_test(test_mistakes_are_told),
        cmocka_unit_test(test_ranks_must_agree),
        cmocka_unit_test(test_waiting_ends),
    };
    return cmocka_run_group_tests_name("nccl", tests, NULL, NULL);
}
