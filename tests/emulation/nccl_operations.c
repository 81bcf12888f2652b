/* NCCL between emulated devices: operations run over MPI, in stream order, when the emulated device
 * gets round to them.
 *
 * What NCCL leaves undefined is rejected here: ranks that do not agree on the operation or on the
 * number of elements, buffers that are not wholly inside device memory or that overlap in any way
 * but the documented ones, a type or an operation that nobody calls.  A send to which no receive
 * belongs waits for ever, as it does there. */
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
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
    if (n_bytes > INT_MAX) emu_reject("%s of %zu bytes is not emulated", what, n_bytes);
    return (struct Span){at, n_bytes};
}

static bool overlap(struct Span a, struct Span b) {
    return a.n_bytes && b.n_bytes && a.at < b.at + b.n_bytes && b.at < a.at + a.n_bytes;
}

/* Every operation begins with one, and `run` gets a pointer to it. */
struct Operation {
    const char *name;
    ncclComm_t comm;
    void (*run)(struct Operation *op);
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
    if (op->comm->broken == ncclSuccess) op->run(op);
}

static void operation_free(void *arg) {
    ((struct Operation *)arg)->comm->n_outstanding--;
    free(arg);
}

/* Gives the stream a copy of the operation, of n_bytes with all that stands behind it. */
static ncclResult_t enqueue(const struct Operation *op, size_t n_bytes, cudaStream_t stream) {
    if (op->comm->broken != ncclSuccess) return op->comm->broken;
    struct Operation *copy = malloc(n_bytes);
    if (!copy) return ncclSystemError;
    memcpy(copy, op, n_bytes);
    copy->comm->n_outstanding++;
    emu_enqueue(stream, copy->name, operation_run, copy, operation_free);
    return ncclSuccess;
}

/* ---- groups ---- */

enum { MAX_TRANSFERS = 512 };

struct Transfer {
    bool sends;
    int peer;
    ncclDataType_t type;
    struct Span span;
};

struct Group {
    struct Operation op;
    int n;
    struct Transfer transfers[MAX_TRANSFERS];
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

/* What both ends must agree on. */
struct Header {
    size_t n_bytes;
    int type;
};

static void exchange_headers(const struct Group *group) {
    MPI_Request requests[MAX_TRANSFERS];
    struct Header mine[MAX_TRANSFERS] = {0}, theirs[MAX_TRANSFERS];
    for (int i = 0; i < group->n; i++) {
        const struct Transfer *t = &group->transfers[i];
        mine[i].n_bytes = t->span.n_bytes;
        mine[i].type = t->type;
        if (t->sends)
            MPI_Isend(&mine[i], sizeof *mine, MPI_BYTE, t->peer, 0, group->op.comm->mpi,
                      &requests[i]);
        else
            MPI_Irecv(&theirs[i], sizeof *theirs, MPI_BYTE, t->peer, 0, group->op.comm->mpi,
                      &requests[i]);
    }
    MPI_Waitall(group->n, requests, MPI_STATUSES_IGNORE);
    for (int i = 0; i < group->n; i++) {
        if (group->transfers[i].sends) continue;
        if (mine[i].n_bytes != theirs[i].n_bytes || mine[i].type != theirs[i].type)
            emu_reject(
                "ncclRecv: rank %d expects %zu bytes of type %d from rank %d, which sends %zu of "
                "type %d",
                group->op.comm->rank, mine[i].n_bytes, mine[i].type, group->transfers[i].peer,
                theirs[i].n_bytes, theirs[i].type);
    }
}

static void group_run(struct Operation *op) {
    const struct Group *group = (const struct Group *)op;
    MPI_Request requests[MAX_TRANSFERS];
    exchange_headers(group);
    for (int i = 0; i < group->n; i++) {
        const struct Transfer *t = &group->transfers[i];
        if (t->sends)
            MPI_Isend(t->span.at, (int)t->span.n_bytes, MPI_BYTE, t->peer, 1, op->comm->mpi,
                      &requests[i]);
        else
            MPI_Irecv((char *)(uintptr_t)t->span.at, (int)t->span.n_bytes, MPI_BYTE, t->peer, 1,
                      op->comm->mpi, &requests[i]);
    }
    MPI_Waitall(group->n, requests, MPI_STATUSES_IGNORE);
}

/* What one transfer receives, no other may touch: they happen at once. */
static void require_apart(const struct Group *group) {
    for (int i = 0; i < group->n; i++)
        for (int k = 0; k < group->n; k++)
            if (k != i && !group->transfers[i].sends &&
                overlap(group->transfers[i].span, group->transfers[k].span))
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

static ncclResult_t transfer(const char *name, struct Transfer t, ncclComm_t comm,
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
    struct Span span = require_span(send, n_elems * type_bytes(type), "ncclSend: its buffer");
    return transfer("ncclSend", (struct Transfer){true, peer, type, span}, comm, stream);
}

ncclResult_t ncclRecv(void *receive, size_t n_elems, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
    struct Span span = require_span(receive, n_elems * type_bytes(type), "ncclRecv: its buffer");
    return transfer("ncclRecv", (struct Transfer){false, peer, type, span}, comm, stream);
}

/* ---- collectives ---- */

struct Collective {
    struct Operation op;
    const void *send;
    void *receive;
    size_t n_elems; /* of the smaller buffer, or of both */
    ncclDataType_t type;
};

/* Ends the program unless all ranks are in the same operation. */
static void require_agreement(const struct Collective *c) {
    char mine[NCCL_UNIQUE_ID_BYTES] = {0};
    snprintf(mine, sizeof mine, "%s of %zu elements of type %d", c->op.name, c->n_elems, c->type);
    if (!emulated_nccl_agrees(c->op.comm, mine, sizeof mine))
        emu_reject("rank %d is in %s, a peer in another", c->op.comm->rank, mine);
}

/* [n_bytes] of host memory for each rank. */
static void *scratch(ncclComm_t comm, size_t n_bytes) {
    void *memory = malloc(n_bytes * (size_t)comm->n_ranks + 1);
    if (!memory) emu_reject("NCCL: out of host memory");
    return memory;
}

/* In the order of the ranks, so that all of them get the same bits.  parts [n_ranks, n_elems] */
static void add_parts(float *sum, const float *parts, size_t n_elems, int n_ranks) {
    for (size_t i = 0; i < n_elems; i++) {
        float total = parts[i];
        for (int rank = 1; rank < n_ranks; rank++) total += parts[(size_t)rank * n_elems + i];
        sum[i] = total;
    }
}

static void all_reduce_run(struct Operation *op) {
    const struct Collective *c = (const struct Collective *)op;
    int n = (int)c->n_elems;
    require_agreement(c);
    float *parts = scratch(op->comm, c->n_elems * sizeof *parts);
    MPI_Allgather(c->send, n, MPI_FLOAT, parts, n, MPI_FLOAT, op->comm->mpi);
    add_parts(c->receive, parts, c->n_elems, op->comm->n_ranks);
    free(parts);
}

static void reduce_scatter_run(struct Operation *op) {
    const struct Collective *c = (const struct Collective *)op;
    int n = (int)c->n_elems;
    require_agreement(c);
    float *parts = scratch(op->comm, c->n_elems * sizeof *parts);
    MPI_Alltoall(c->send, n, MPI_FLOAT, parts, n, MPI_FLOAT, op->comm->mpi);
    add_parts(c->receive, parts, c->n_elems, op->comm->n_ranks);
    free(parts);
}

static void all_gather_run(struct Operation *op) {
    const struct Collective *c = (const struct Collective *)op;
    size_t n_bytes = c->n_elems * type_bytes(c->type);
    require_agreement(c);
    bool in_place = c->send == (char *)c->receive + (size_t)op->comm->rank * n_bytes;
    MPI_Allgather(in_place ? MPI_IN_PLACE : c->send, (int)n_bytes, MPI_BYTE, c->receive,
                  (int)n_bytes, MPI_BYTE, op->comm->mpi);
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
