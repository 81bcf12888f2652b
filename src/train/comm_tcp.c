/* Each message has a frame, which tells an operation that the other end does not expect, and tells
 * the others' end from another rank's:
 *
 *     rank 0 -> all, instead of any answer:   FRAME_LOST, the rank whose connection broke
 *
 * Nobody waits for anybody but rank 0, and rank 0 takes from the ranks in their order: whatever
 * comes early waits in its connection.  Long sums go in parts, each there and back before the next,
 * and an exchange goes sender by sender, so that no two ends wait for each other with full
 * connections. */
#include "train/comm_tcp.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "train/comm_gather.h"
#include "train/phase_timer.h"
#include "train/rendezvous.h"

enum FrameKind { FRAME_LOST, FRAME_SUM, FRAME_GATHER, FRAME_EXCHANGE, FRAME_BROADCAST };

struct Frame {
    int32_t kind, lost_rank;
    int64_t n_bytes; /* that follow */
};

enum { PART_BYTES = 1 << 18 };

struct TcpState {
    struct Star star;
    char part[PART_BYTES];
};

static struct StarPeer *peer_at(const struct Comm *comm, int rank) {
    return &((struct TcpState *)comm->state)->star.peers[rank];
}

/* ---- messages ---- */

_Noreturn static void end_all_ranks(struct Comm *comm, int lost_rank) {
    struct Frame frame = {.kind = FRAME_LOST, .lost_rank = lost_rank};
    for (int r = 1; comm->rank == 0 && r < comm->n_ranks; r++)
        if (r != lost_rank) socket_send(peer_at(comm, r)->fd, &frame, sizeof frame, wall_seconds());
    fatal_at(__FILE__, __LINE__, "connection", "rank %d on host %s is gone", lost_rank,
             peer_at(comm, lost_rank)->host);
}

_Noreturn static void heed_end(struct Comm *comm, const struct Frame *frame) {
    (void)comm;
    fatal_at(__FILE__, __LINE__, "connection", "rank 0 says that rank %d is gone",
             frame->lost_rank);
}

/* A rank whose message does not get through may have been told why. */
_Noreturn static void lose(struct Comm *comm, int rank) {
    struct Frame frame;
    if (comm->rank && socket_receive(peer_at(comm, 0)->fd, &frame, sizeof frame, wall_seconds()) &&
        frame.kind == FRAME_LOST)
        heed_end(comm, &frame);
    end_all_ranks(comm, rank);
}

static void put_bytes(struct Comm *comm, int to, const void *bytes, int64_t n_bytes) {
    if (!socket_send(peer_at(comm, to)->fd, bytes, n_bytes, INFINITY)) lose(comm, to);
}

static void take_bytes(struct Comm *comm, int from, void *bytes, int64_t n_bytes) {
    if (!socket_receive(peer_at(comm, from)->fd, bytes, n_bytes, INFINITY)) lose(comm, from);
}

static struct Frame take_frame(struct Comm *comm, int from, enum FrameKind kind) {
    struct Frame frame;
    take_bytes(comm, from, &frame, sizeof frame);
    if (frame.kind == FRAME_LOST) heed_end(comm, &frame);
    TMD_CHECK(frame.kind == (int)kind, "rank %d is in operation %d, rank %d in %d", from,
              frame.kind, comm->rank, (int)kind);
    return frame;
}

static void put(struct Comm *comm, int to, enum FrameKind kind, const void *bytes,
                int64_t n_bytes) {
    struct Frame frame = {.kind = kind, .n_bytes = n_bytes};
    put_bytes(comm, to, &frame, sizeof frame);
    put_bytes(comm, to, bytes, n_bytes);
}

static void take(struct Comm *comm, int from, enum FrameKind kind, void *bytes, int64_t n_bytes) {
    struct Frame frame = take_frame(comm, from, kind);
    TMD_CHECK(frame.n_bytes == n_bytes, "rank %d sent %lld bytes, rank %d expects %lld", from,
              (long long)frame.n_bytes, comm->rank, (long long)n_bytes);
    take_bytes(comm, from, bytes, n_bytes);
}

/* From rank 0 to all others. */
static void spread(struct Comm *comm, enum FrameKind kind, void *bytes, int64_t n_bytes) {
    if (comm->rank)
        take(comm, 0, kind, bytes, n_bytes);
    else
        for (int r = 1; r < comm->n_ranks; r++) put(comm, r, kind, bytes, n_bytes);
}

/* ---- operations ---- */

static int64_t part_bytes(int64_t n_bytes, int64_t at) {
    return n_bytes - at < PART_BYTES ? n_bytes - at : PART_BYTES;
}

typedef void (*Add)(void *sum, const void *term, int64_t n_bytes);

static void add_f32(void *sum, const void *term, int64_t n_bytes) {
    float *to = sum;
    const float *from = term;
    for (int64_t i = 0; i < n_bytes / (int64_t)sizeof *to; i++) to[i] += from[i];
}

static void add_f64(void *sum, const void *term, int64_t n_bytes) {
    double *to = sum;
    const double *from = term;
    for (int64_t i = 0; i < n_bytes / (int64_t)sizeof *to; i++) to[i] += from[i];
}

static void sum(struct Comm *comm, void *buffer, int64_t n_bytes, Add add) {
    char *scratch = ((struct TcpState *)comm->state)->part;
    for (int64_t at = 0; at < n_bytes; at += PART_BYTES) {
        char *part = (char *)buffer + at;
        int64_t n = part_bytes(n_bytes, at);
        if (comm->rank) put(comm, 0, FRAME_SUM, part, n);
        for (int r = 1; comm->rank == 0 && r < comm->n_ranks; r++) {
            take(comm, r, FRAME_SUM, scratch, n);
            add(part, scratch, n);
        }
        spread(comm, FRAME_SUM, part, n);
    }
}

static CommTicket tcp_sum_start(struct Comm *comm, float *buffer, int64_t n_elems) {
    int64_t n_bytes = n_elems * (int64_t)sizeof *buffer;
    sum(comm, buffer, n_bytes, add_f32);
    return comm_count_ring(comm, 2, n_bytes);
}

static CommTicket tcp_scatter_sum_start(struct Comm *comm, float *own, float *all,
                                        int64_t n_elems) {
    int64_t n_bytes = n_elems * (int64_t)sizeof *all;
    sum(comm, all, comm->n_ranks * n_bytes, add_f32);
    memmove(own, all + comm->rank * n_elems, (size_t)n_bytes);
    return comm_count_ring(comm, 1, comm->n_ranks * n_bytes);
}

static CommTicket tcp_gather_start(struct Comm *comm, void *all, const void *own, int64_t n_bytes) {
    memmove((char *)all + comm->rank * n_bytes, own, (size_t)n_bytes);
    if (comm->rank) put(comm, 0, FRAME_GATHER, own, n_bytes);
    for (int r = 1; comm->rank == 0 && r < comm->n_ranks; r++)
        take(comm, r, FRAME_GATHER, (char *)all + r * n_bytes, n_bytes);
    spread(comm, FRAME_GATHER, all, comm->n_ranks * n_bytes);
    return comm_count_ring(comm, 1, comm->n_ranks * n_bytes);
}

/* On rank 0: what `from` sends to `to`. */
static void pass_on(struct Comm *comm, int from, int to) {
    char *part = ((struct TcpState *)comm->state)->part;
    struct Frame frame = take_frame(comm, from, FRAME_EXCHANGE);
    put_bytes(comm, to, &frame, sizeof frame);
    for (int64_t at = 0; at < frame.n_bytes; at += PART_BYTES) {
        int64_t n = part_bytes(frame.n_bytes, at);
        take_bytes(comm, from, part, n);
        put_bytes(comm, to, part, n);
    }
}

static CommTicket tcp_exchange_start(struct Comm *comm, void *recv,
                                     const struct CommPart *recv_parts, const void *send,
                                     const struct CommPart *send_parts) {
    const int own = comm->rank;
    for (int from = 0; from < comm->n_ranks; from++)
        for (int to = 0; to < comm->n_ranks; to++) {
            const char *source = (const char *)send + send_parts[to].at;
            char *target = (char *)recv + recv_parts[from].at;
            if (from == own && to == own)
                memcpy(target, source, (size_t)send_parts[own].n_bytes);
            else if (from == own)
                put(comm, own ? 0 : to, FRAME_EXCHANGE, source, send_parts[to].n_bytes);
            else if (to == own)
                take(comm, own ? 0 : from, FRAME_EXCHANGE, target, recv_parts[from].n_bytes);
            else if (own == 0 && from != to)
                pass_on(comm, from, to);
        }
    return comm_count_exchange(comm, send_parts);
}

static void tcp_wait(struct Comm *comm, CommTicket ticket) {
    (void)comm, (void)ticket;
}

static void tcp_finish(struct Comm *comm) {
    (void)comm;
}

static void tcp_sum_f64(struct Comm *comm, double *host, int64_t n_elems) {
    sum(comm, host, n_elems * (int64_t)sizeof *host, add_f64);
}

static void tcp_broadcast(struct Comm *comm, void *host, int64_t n_bytes, int root) {
    if (root && comm->rank == root) put(comm, 0, FRAME_BROADCAST, host, n_bytes);
    if (root && comm->rank == 0) take(comm, root, FRAME_BROADCAST, host, n_bytes);
    spread(comm, FRAME_BROADCAST, host, n_bytes); /* to `root` too: what it has already */
}

/* ---- beginning and end ---- */

static void tcp_destroy(struct Comm *comm) {
    struct TcpState *state = comm->state;
    star_close(&state->star);
    free(state);
    free(comm);
}

static void tcp_world_destroy(struct Comm *comm) {
    fatal_set_handler(comm->rank, NULL);
    tcp_destroy(comm);
}

/* The other ranks see the connection break. */
static void end_this_rank(int exit_code) {
    _exit(exit_code);
}

static struct Comm *tcp_split(struct Comm *comm, int n_ranks, int stride);

/* *n_local: how many of the star's ranks this host has. */
static struct Comm *make(struct Star star, void (*destroy)(struct Comm *comm), int *n_local) {
    typedef char HostName[STAR_HOST_BYTES];
    struct TcpState *state = xcalloc(sizeof *state);
    struct Comm *comm = xcalloc(sizeof *comm);
    state->star = star;
    *comm = (struct Comm){.name = "tcp",
                          .rank = star.rank,
                          .n_ranks = star.n_ranks,
                          .state = state,
                          .sum_start = tcp_sum_start,
                          .scatter_sum_start = tcp_scatter_sum_start,
                          .gather_start = tcp_gather_start,
                          .exchange_start = tcp_exchange_start,
                          .wait = tcp_wait,
                          .finish = tcp_finish,
                          .sum_f64 = tcp_sum_f64,
                          .broadcast = tcp_broadcast,
                          .split = tcp_split,
                          .destroy = destroy};
    HostName own = "", *hosts = xcalloc((size_t)comm->n_ranks * sizeof *hosts);
    gethostname(own, sizeof own - 1);
    comm_gather_host(comm, hosts, own, sizeof own);
    *n_local = 0;
    for (int r = 0; r < comm->n_ranks; r++) {
        if (r == comm->rank) comm->local_rank = *n_local;
        *n_local += strcmp(hosts[r], own) == 0;
    }
    free(hosts);
    return comm;
}

/* The first rank of each group listens, and all learn where by the communicator that they have. */
static struct Comm *tcp_split(struct Comm *comm, int n_ranks, int stride) {
    enum { SECONDS = 30 }; /* right behind an operation of all ranks */
    comm_split_group(comm, n_ranks, stride);
    int first = comm->rank / (n_ranks * stride) * n_ranks * stride + comm->rank % stride;
    int rank = (comm->rank - first) / stride, listening = -1, n_local;
    double until = wall_seconds() + SECONDS;
    struct StarAddress own = {0}, *all = xcalloc((size_t)comm->n_ranks * sizeof *all);
    struct Star star;
    struct Error err;
    bool ok = rank || (listening = star_listen(&own, &err)) >= 0;
    TMD_CHECK(ok, "%s", err.text);
    comm_gather_host(comm, all, &own, sizeof own);
    ok = rank ? star_follow(&star, rank, n_ranks, star_find_known, &all[first], until, &err)
              : star_lead(&star, listening, &own, n_ranks, until, &err);
    TMD_CHECK(ok, "%s", err.text);
    free(all);
    return make(star, tcp_destroy, &n_local);
}

struct Comm *comm_tcp_create(struct Error *err) {
    struct Launch launch;
    struct Star star;
    int n_local;
    if (!launch_read(&launch, err) || !rendezvous(&launch, &star, err)) return NULL;
    fatal_set_handler(launch.rank, end_this_rank);
    struct Comm *comm = make(star, tcp_world_destroy, &n_local);
    if (launch.local_rank >= 0) comm->local_rank = launch.local_rank;
    comm_share_threads(n_local);
    return comm;
}
