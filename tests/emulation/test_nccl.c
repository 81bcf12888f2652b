/* What the emulated NCCL refuses, seen by a communicator of one rank: by a status where NCCL would
 * return one, or by the end of the program.  What it computes is tested by tests/train/test_comm.c.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>
#include <mpi.h>
#include <nccl.h>

#include "child.h"

enum { N = 64 };

/* Of the process that a body runs in; a mistake ends it. */
struct Rank {
    ncclComm_t comm;
    cudaStream_t stream;
    float *device; /* [N] */
};

static void rank_begin(struct Rank *rank) {
    ncclUniqueId id;
    MPI_Init(NULL, NULL);
    if (ncclGetUniqueId(&id) != ncclSuccess ||
        ncclCommInitRank(&rank->comm, 1, id, 0) != ncclSuccess ||
        cudaStreamCreateWithFlags(&rank->stream, cudaStreamNonBlocking) != cudaSuccess ||
        cudaMalloc((void **)&rank->device, N * sizeof(float)) != cudaSuccess ||
        cudaMemsetAsync(rank->device, 0, N * sizeof(float), rank->stream) != cudaSuccess)
        exit(1);
}

static bool rank_end(struct Rank *rank) {
    bool ok = cudaStreamSynchronize(rank->stream) == cudaSuccess &&
              ncclCommDestroy(rank->comm) == ncclSuccess && cudaFree(rank->device) == cudaSuccess &&
              cudaStreamDestroy(rank->stream) == cudaSuccess;
    MPI_Finalize();
    return ok;
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

static bool collective_in_a_group(void) {
    struct Rank r;
    rank_begin(&r);
    ncclGroupStart();
    ncclAllReduce(r.device, r.device, N, ncclFloat, ncclSum, r.comm, r.stream);
    return ncclGroupEnd() == ncclSuccess && rank_end(&r);
}

static bool split_while_busy(void) {
    struct Rank r;
    ncclComm_t part;
    rank_begin(&r);
    ncclAllReduce(r.device, r.device, N, ncclFloat, ncclSum, r.comm, r.stream);
    ncclCommSplit(r.comm, 0, 0, &part, NULL);
    return rank_end(&r);
}

static bool destroy_while_busy(void) {
    struct Rank r;
    rank_begin(&r);
    ncclAllReduce(r.device, r.device, N, ncclFloat, ncclSum, r.comm, r.stream);
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
                    "ncclRecv: rank 0 expects 36 bytes of type 7 from rank 0");
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
        if (ncclAllReduce(r.device, r.device, N, ncclFloat, ncclSum, r.comm, r.stream))
            return false;
    bool ok = says(r.comm, ncclSuccess) && cudaStreamSynchronize(r.stream) == cudaSuccess &&
              says(r.comm, ncclRemoteError) &&
              ncclAllReduce(r.device, r.device, N, ncclFloat, ncclSum, r.comm, r.stream) ==
                  ncclRemoteError;
    return ok && rank_end(&r);
}

static void test_mistakes_are_told(void **state) {
    (void)state;
    expect_true_with("TMD_EMULATED_STRICT", "1", statuses);
    expect_true_with("TMD_EMULATED_NCCL_FAULT", "2", second_breaks);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mistakes_end_the_program),
        cmocka_unit_test(test_mistakes_are_told),
    };
    return cmocka_run_group_tests_name("nccl", tests, NULL, NULL);
}
