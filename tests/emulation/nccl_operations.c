/* NCCL between emulated devices: operations run in stream order, when the emulated device gets
 * round to them, and then wait for their peers.
 *
 * What NCCL leaves undefined is rejected here: ranks that do not agree on the operation or on the
 * number of elements, buffers that are not wholly inside device memory or that overlap in any way
 * but the documented ones, a type or an operation that nobody calls.  A receive to which no send
 * belongs waits for ever, as it does there; a send without a receive is seen by the next operation,
 * or by the end of the communicator. */
#include <stdlib.h>
#include <string.h>

#include "nccl_internal.h"

/* ---- what all operations share ---- */

/* A piece of device memory. */
struct Span {
    const char *at;
    size_t n_bytes;
};

static struct Span require_span(const void *at, size_t n_bytes, const char *what) {
    emu_require_device(at, n_bytes, what);
    return (struct Span){at, n_bytes};
}

static bool overlap(struct Span a, struct Span b) {
    return a.n_bytes && b.n_bytes && a.at < b.at + b.n_bytes && b.at < a.at + a.n_bytes;
}

/* Every operation begins with one, and `run` gets a pointer to it; false: a peer is gone. */
struct Operation {
    const char *name;
    ncclComm_t comm;
    bool (*run)(struct Operation *op);
};

/* TMD_EMULATED_NCCL_FAULT: the number of the operation, as this process runs them, that breaks. */
static bool breaks_now(void) {
    static long n_run;
    const char *fault = getenv("TMD_EMULATED_NCCL_FAULT");
    return ++n_run == (fault ? atol(fault) : 0);
}

static void operation_run(void *arg) {
    struct Operation *op = arg;
    if (breaks_now()) op->comm->broken = ncclRemoteError;
    if (op->comm->broken == ncclSuccess && !op->run(op)) op->comm->broken = ncclRemoteError;
}

static void operation_free(void *arg) {
    nccl_release(((struct Operation *)arg)->comm);
    free(arg);
}

/* Gives the stream a copy of the operation, of n_bytes with all that stands behind it. */
static ncclResult_t enqueue(const struct Operation *op, size_t n_bytes, cudaStream_t stream) {
    if (op->comm->broken != ncclSuccess) return op->comm->broken;
    struct Operation *copy = malloc(n_bytes);
    if (!copy) return ncclSystemError;
    memcpy(copy, op, n_bytes);
    atomic_fetch_add(&copy->comm->n_holders, 1);
    emu_enqueue(stream, copy->name, operation_run, copy, operation_free);
    return ncclSuccess;
}

/* ---- groups ---- */

enum { MAX_TRANSFERS = 512 };

struct Group {
    struct Operation op;
    int n;
    struct NcclTransfer transfers[MAX_TRANSFERS];
};

/* The one that this thread is in. */
static _Thread_local struct {
    int depth;
    cudaStream_t stream;
    struct Group group;
} at_hand;

static size_t type_bytes(ncclDataType_t type) {
    return type == ncclInt8 ? 1 : type == ncclBfloat16 ? 2 : type == ncclFloat ? 4 : 8;
}

static bool group_run(struct Operation *op) {
    const struct Group *group = (const struct Group *)op;
    return nccl_transfer(op->comm, op->name, group->transfers, group->n);
}

static struct Span span_of(const struct NcclTransfer *transfer) {
    return (struct Span){transfer->at, transfer->n_bytes};
}

/* What one transfer receives, no other may touch: they happen at once. */
static void require_apart(const struct Group *group) {
    for (int i = 0; i < group->n; i++)
        for (int k = 0; k < group->n; k++)
            if (k != i && !group->transfers[i].sends &&
                overlap(span_of(&group->transfers[i]), span_of(&group->transfers[k])))
                emu_reject("ncclRecv: its buffer overlaps another's of the group");
}

ncclResult_t ncclGroupStart(void) {
    if (at_hand.depth++ == 0) at_hand.group = (struct Group){0};
    return ncclSuccess;
}

ncclResult_t ncclGroupEnd(void) {
    if (at_hand.depth == 0) return ncclInvalidUsage;
    if (--at_hand.depth > 0 || at_hand.group.n == 0) return ncclSuccess;
    require_apart(&at_hand.group);
    return enqueue(&at_hand.group.op, sizeof at_hand.group, at_hand.stream);
}

static ncclResult_t transfer(const char *name, struct NcclTransfer t, ncclComm_t comm,
                             cudaStream_t stream) {
    struct Group *group = &at_hand.group;
    if (t.peer < 0 || t.peer >= comm->n_ranks) return ncclInvalidArgument;
    ncclGroupStart(); /* alone if there is none yet */
    if (group->n > 0 && (group->op.comm != comm || at_hand.stream != stream))
        emu_reject("%s: a group of several communicators or streams is not emulated", name);
    if (group->n == MAX_TRANSFERS) emu_reject("%s: a group of so many is not emulated", name);
    at_hand.stream = stream;
    group->op = (struct Operation){"ncclSend and ncclRecv", comm, group_run};
    group->transfers[group->n++] = t;
    return ncclGroupEnd();
}

ncclResult_t ncclSend(const void *send, size_t n_elems, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream) {
    size_t n_bytes = n_elems * type_bytes(type);
    emu_require_device(send, n_bytes, "ncclSend: its buffer");
    return transfer("ncclSend",
                    (struct NcclTransfer){true, peer, type, (char *)(uintptr_t)send, n_bytes}, comm,
                    stream);
}

ncclResult_t ncclRecv(void *receive, size_t n_elems, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
    size_t n_bytes = n_elems * type_bytes(type);
    emu_require_device(receive, n_bytes, "ncclRecv: its buffer");
    return transfer("ncclRecv", (struct NcclTransfer){false, peer, type, receive, n_bytes}, comm,
                    stream);
}

/* ---- collectives ---- */

struct Collective {
    struct Operation op;
    const void *send;
    void *receive;
    size_t n_elems; /* of the smaller buffer, or of both */
    ncclDataType_t type;
};

/* In the order of the ranks, so that all of them get the same bits.  parts [n_ranks, n_elems] */
static void add_parts(float *sum, const float *parts, size_t n_elems, int n_ranks) {
    for (size_t i = 0; i < n_elems; i++) {
        float total = parts[i];
        for (int rank = 1; rank < n_ranks; rank++) total += parts[(size_t)rank * n_elems + i];
        sum[i] = total;
    }
}

/* receive = the sum over ranks of what they have for this one, `out_stride` bytes from what they
 * have for the next. */
static bool sum_parts(const struct Collective *c, size_t out_stride) {
    size_t n_bytes = c->n_elems * sizeof(float);
    float *parts = malloc((size_t)c->op.comm->n_ranks * n_bytes + 1);
    if (!parts) emu_reject("NCCL: out of host memory");
    bool ok = nccl_swap_parts(c->op.comm, c->op.name, c->type, c->send, out_stride, parts, n_bytes);
    if (ok) add_parts(c->receive, parts, c->n_elems, c->op.comm->n_ranks);
    free(parts);
    return ok;
}

static bool all_reduce_run(struct Operation *op) {
    const struct Collective *c = (const struct Collective *)op;
    return sum_parts(c, 0);
}

static bool reduce_scatter_run(struct Operation *op) {
    const struct Collective *c = (const struct Collective *)op;
    return sum_parts(c, c->n_elems * sizeof(float));
}

static bool all_gather_run(struct Operation *op) {
    const struct Collective *c = (const struct Collective *)op;
    return nccl_swap_parts(op->comm, op->name, c->type, c->send, 0, c->receive,
                           c->n_elems * type_bytes(c->type));
}

/* `large` holds a part for each rank, among them the place of this rank's `small`. */
static void require_in_place_or_apart(const char *name, ncclComm_t comm, struct Span small,
                                      struct Span large) {
    if (small.at != large.at + (size_t)comm->rank * small.n_bytes && overlap(small, large))
        emu_reject("%s: send and receive buffers overlap, but not as in-place operation", name);
}

static ncclResult_t collective(struct Collective c, cudaStream_t stream) {
    if (at_hand.depth) emu_reject("%s in a group is not emulated", c.op.name);
    return enqueue(&c.op, sizeof c, stream);
}

ncclResult_t ncclAllReduce(const void *send, void *receive, size_t n_elems, ncclDataType_t type,
                           ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream) {
    if (type != ncclFloat || op != ncclSum) return ncclInvalidArgument;
    size_t n_bytes = n_elems * sizeof(float);
    struct Span from = require_span(send, n_bytes, "ncclAllReduce: send buffer");
    struct Span to = require_span(receive, n_bytes, "ncclAllReduce: receive buffer");
    if (send != receive && overlap(from, to))
        emu_reject("ncclAllReduce: send and receive buffers overlap without being the same");
    return collective(
        (struct Collective){{"ncclAllReduce", comm, all_reduce_run}, send, receive, n_elems, type},
        stream);
}

ncclResult_t ncclReduceScatter(const void *send, void *receive, size_t n_elems, ncclDataType_t type,
                               ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream) {
    if (type != ncclFloat || op != ncclSum) return ncclInvalidArgument;
    size_t n_bytes = n_elems * sizeof(float);
    struct Span to = require_span(receive, n_bytes, "ncclReduceScatter: receive buffer");
    struct Span from =
        require_span(send, (size_t)comm->n_ranks * n_bytes, "ncclReduceScatter: send buffer");
    require_in_place_or_apart("ncclReduceScatter", comm, to, from);
    return collective(
        (struct Collective){
            {"ncclReduceScatter", comm, reduce_scatter_run}, send, receive, n_elems, type},
        stream);
}

ncclResult_t ncclAllGather(const void *send, void *receive, size_t n_elems, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream) {
    size_t n_bytes = n_elems * type_bytes(type);
    struct Span from = require_span(send, n_bytes, "ncclAllGather: send buffer");
    struct Span to =
        require_span(receive, (size_t)comm->n_ranks * n_bytes, "ncclAllGather: receive buffer");
    require_in_place_or_apart("ncclAllGather", comm, from, to);
    return collective(
        (struct Collective){{"ncclAllGather", comm, all_gather_run}, send, receive, n_elems, type},
        stream);
}
