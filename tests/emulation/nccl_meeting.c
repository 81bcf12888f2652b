/* How the ranks of an emulated communicator find each other, on one machine and without anybody's
 * help.
 *
 * The unique id is a random name.  Each rank listens at the abstract Unix socket of that name and
 * its rank, connects to the ranks below it, and takes the connections of those above.  The kernel
 * closes all of it with the process, so that nothing is left behind and the peers hear of an end.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "nccl_internal.h"

enum { MINUTE = 60 * 1000, PAUSE = 2 }; /* milliseconds */

static const char PREFIX[] = "tmd-emulated-nccl-";

void nccl_make_name(ncclUniqueId *id) {
    unsigned long long random[2];
    if (getrandom(random, sizeof random, 0) != sizeof random)
        emu_reject("ncclGetUniqueId: the system gives no random numbers");
    memset(id, 0, sizeof *id);
    snprintf(id->internal, sizeof id->internal, "%s%016llx%016llx", PREFIX, random[0], random[1]);
}

struct Address {
    struct sockaddr_un name;
    socklen_t n_bytes;
};

/* Abstract: behind a zero, and no file. */
static struct Address address_of(const ncclUniqueId *id, int rank) {
    struct Address address = {.name.sun_family = AF_UNIX};
    int n_chars = snprintf(address.name.sun_path + 1, sizeof address.name.sun_path - 1, "%.64s-%d",
                           id->internal, rank);
    address.n_bytes = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n_chars);
    return address;
}

static int new_socket(void) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) emu_reject("NCCL: no socket: %s", strerror(errno));
    return fd;
}

static int listen_as(const ncclUniqueId *id, int rank, int n_ranks) {
    struct Address own = address_of(id, rank);
    int fd = new_socket();
    if (bind(fd, (struct sockaddr *)&own.name, own.n_bytes) != 0)
        emu_reject("ncclCommInitRank: rank %d is there already, or cannot listen: %s", rank,
                   strerror(errno));
    if (listen(fd, n_ranks) != 0) emu_reject("NCCL: cannot listen: %s", strerror(errno));
    return fd;
}

/* Who connects says who it is. */
struct Greeting {
    int rank, n_ranks;
};

/* A connection to a rank that may still be on its way, or -1. */
static int connect_to(const ncclUniqueId *id, int peer, struct Greeting own) {
    static const struct timespec pause = {.tv_nsec = PAUSE * 1000000};
    struct Address address = address_of(id, peer);
    int fd = new_socket();
    bool connected = false;
    for (int waited = 0; !connected && waited < MINUTE; waited += PAUSE) {
        if (waited) nanosleep(&pause, NULL);
        connected = connect(fd, (struct sockaddr *)&address.name, address.n_bytes) == 0;
    }
    if (connected && send(fd, &own, sizeof own, MSG_NOSIGNAL) == sizeof own) return fd;
    close(fd);
    return -1;
}

/* Takes the connection of some rank above this one. */
static bool admit(int listening, struct Greeting own, struct NcclPeer *peers) {
    struct pollfd news = {.fd = listening, .events = POLLIN};
    struct Greeting other;
    if (poll(&news, 1, MINUTE) != 1) return false;
    int fd = accept(listening, NULL, NULL);
    if (fd < 0) return false;
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    if (recv(fd, &other, sizeof other, MSG_WAITALL) != sizeof other) {
        close(fd);
        return false;
    }
    if (other.n_ranks != own.n_ranks)
        emu_reject("ncclCommInitRank: rank %d of %d meets rank %d of %d", own.rank, own.n_ranks,
                   other.rank, other.n_ranks);
    peers[other.rank] = (struct NcclPeer){fd, fd};
    return true;
}

static struct NcclPeer meet_oneself(void) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        emu_reject("NCCL: no sockets: %s", strerror(errno));
    return (struct NcclPeer){ends[0], ends[1]};
}

bool nccl_meet(const ncclUniqueId *id, int rank, int n_ranks, struct NcclPeer *peers) {
    if (memcmp(id->internal, PREFIX, sizeof PREFIX - 1) != 0)
        emu_reject("ncclCommInitRank: what rank %d has is no unique id", rank);
    struct Greeting own = {rank, n_ranks};
    int listening = listen_as(id, rank, n_ranks);
    bool ok = true;
    for (int r = 0; r < n_ranks; r++) peers[r] = (struct NcclPeer){-1, -1};
    peers[rank] = meet_oneself();
    for (int r = 0; ok && r < rank; r++) {
        int fd = connect_to(id, r, own);
        peers[r] = (struct NcclPeer){fd, fd};
        ok = fd >= 0;
    }
    for (int r = rank + 1; ok && r < n_ranks; r++) ok = admit(listening, own, peers);
    close(listening);
    return ok;
}
