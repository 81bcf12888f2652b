/* Bytes between the ranks of an emulated communicator, through sockets (nccl_meeting.c).
 *
 * Each transfer is a label and its bytes.  The receiver compares the label with what it expects:
 * ranks that are not in the same operation are found out there. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "nccl_internal.h"

/* Without gaps: it is compared as bytes. */
struct Label {
    char operation[32];
    uint64_t n_bytes;
    int64_t type;
};

/* What goes in one direction between this rank and a peer. */
struct Lane {
    int fd, rank, peer;
    bool sends;
    const char *operation;
    const struct NcclTransfer *at_hand, *end; /* the same when all is done */
    struct Label label;                       /* of the one at hand */
    size_t n_moved;                           /* of it, label and bytes together */
};

static struct Label label_of(const char *operation, const struct NcclTransfer *transfer) {
    struct Label label = {.n_bytes = transfer->n_bytes, .type = transfer->type};
    strncpy(label.operation, operation, sizeof label.operation - 1);
    return label;
}

static void require_expected(const struct Lane *lane) {
    const struct NcclTransfer *own = lane->at_hand;
    struct Label expected = label_of(lane->operation, own), got = lane->label;
    if (memcmp(&expected, &got, sizeof got) != 0)
        emu_reject("%s: rank %d expects %zu bytes of type %d from rank %d, which sends %zu of type "
                   "%d in %.31s",
                   lane->operation, lane->rank, own->n_bytes, own->type, lane->peer,
                   (size_t)got.n_bytes, (int)got.type, got.operation);
}

/* Turns to the lane's first transfer from `next` on. */
static void turn_to(struct Lane *lane, const struct NcclTransfer *next) {
    while (next < lane->end && (next->sends != lane->sends || next->peer != lane->peer)) next++;
    lane->at_hand = next;
    lane->n_moved = 0;
    if (next < lane->end && lane->sends) lane->label = label_of(lane->operation, next);
}

/* Some bytes, no further than to the end of the label or of the transfer; as send and recv. */
static ssize_t move_some(struct Lane *lane) {
    bool in_label = lane->n_moved < sizeof lane->label;
    size_t done = in_label ? lane->n_moved : lane->n_moved - sizeof lane->label;
    size_t left = (in_label ? sizeof lane->label : lane->at_hand->n_bytes) - done;
    char *at = (in_label ? (char *)&lane->label : lane->at_hand->at) + done;
    return lane->sends ? send(lane->fd, at, left, MSG_DONTWAIT | MSG_NOSIGNAL)
                       : recv(lane->fd, at, left, MSG_DONTWAIT);
}

/* All that the socket takes or has now; false: the peer is gone. */
static bool move(struct Lane *lane) {
    while (lane->at_hand < lane->end) {
        ssize_t n = move_some(lane);
        if (n < 0 && errno == EAGAIN) return true;
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        lane->n_moved += (size_t)n;
        if (!lane->sends && lane->n_moved == sizeof lane->label) require_expected(lane);
        if (lane->n_moved == sizeof lane->label + lane->at_hand->n_bytes)
            turn_to(lane, lane->at_hand + 1);
    }
    return true;
}

/* Until all lanes are empty.  Where one breaks the others are still heard: a peer that ended
 * because of a mistake has said which.  polls [n_lanes] is scratch. */
static bool move_all(struct Lane *lanes, int n_lanes, struct pollfd *polls) {
    for (;;) {
        nfds_t n_busy = 0;
        bool ok = true;
        for (int i = 0; i < n_lanes; i++) {
            ok &= move(&lanes[i]);
            if (lanes[i].at_hand < lanes[i].end)
                polls[n_busy++] =
                    (struct pollfd){.fd = lanes[i].fd, .events = lanes[i].sends ? POLLOUT : POLLIN};
        }
        if (!ok || n_busy == 0) return ok;
        poll(polls, n_busy, -1);
    }
}

bool nccl_transfer(ncclComm_t comm, const char *operation, const struct NcclTransfer *transfers,
                   int n) {
    int n_lanes = 2 * comm->n_ranks;
    struct Lane *lanes = malloc((size_t)n_lanes * sizeof *lanes);
    struct pollfd *polls = malloc((size_t)n_lanes * sizeof *polls);
    if (!lanes || !polls) emu_reject("NCCL: out of host memory");
    for (int i = 0; i < n_lanes; i++) {
        int peer = i % comm->n_ranks;
        bool sends = i < comm->n_ranks; /* first: what it says is heard even if it ends here */
        lanes[i] = (struct Lane){.fd = sends ? comm->peers[peer].to : comm->peers[peer].from,
                                 .rank = comm->rank,
                                 .peer = peer,
                                 .sends = sends,
                                 .operation = operation,
                                 .end = transfers + n};
        turn_to(&lanes[i], transfers);
    }
    bool ok = move_all(lanes, n_lanes, polls);
    free(lanes);
    free(polls);
    return ok;
}

bool nccl_swap_parts(ncclComm_t comm, const char *operation, ncclDataType_t type, const void *out,
                     size_t out_stride, void *in, size_t n_bytes) {
    struct NcclTransfer *transfers = malloc(2 * (size_t)comm->n_ranks * sizeof *transfers);
    if (!transfers) emu_reject("NCCL: out of host memory");
    int n = 0;
    for (int r = 0; r < comm->n_ranks; r++) {
        char *from = (char *)(uintptr_t)out + (size_t)r * out_stride;
        char *to = (char *)in + (size_t)r * n_bytes;
        if (r == comm->rank) {
            memmove(to, from, n_bytes);
            continue;
        }
        transfers[n++] = (struct NcclTransfer){true, r, type, from, n_bytes};
        transfers[n++] = (struct NcclTransfer){false, r, type, to, n_bytes};
    }
    bool ok = nccl_transfer(comm, operation, transfers, n);
    free(transfers);
    return ok;
}

int nccl_unheard_peer(ncclComm_t comm) {
    char byte;
    for (int r = 0; r < comm->n_ranks; r++)
        if (recv(comm->peers[r].from, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0) return r;
    return -1;
}
