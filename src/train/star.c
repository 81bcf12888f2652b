/* Greetings, the first rank's side, the other ranks' side. */
#include "train/star.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "train/phase_timer.h"

static const uint64_t MAGIC = 0x3152415453444d54; /* "TMDSTAR1" */
static const double GREETING_SECONDS = 2.0;       /* who takes longer is a stranger */

struct Greeting {
    uint64_t magic, key;
    int32_t rank, n_ranks;
    char host[STAR_HOST_BYTES];
};

static struct Greeting greeting_of(uint64_t key, int rank, int n_ranks) {
    struct Greeting greeting = {.magic = MAGIC, .key = key, .rank = rank, .n_ranks = n_ranks};
    gethostname(greeting.host, sizeof greeting.host - 1);
    return greeting;
}

static bool greet(int fd, struct Greeting own) {
    return socket_send(fd, &own, sizeof own, wall_seconds() + GREETING_SECONDS);
}

/* The other end's greeting, if it is of the star `key`. */
static bool greeted(int fd, uint64_t key, double until, struct Greeting *other) {
    if (!socket_receive(fd, other, sizeof *other, until)) return false;
    other->host[sizeof other->host - 1] = '\0';
    return other->magic == MAGIC && other->key == key;
}

static struct Star star_empty(int rank, int n_ranks) {
    struct Star star = {
        .rank = rank, .n_ranks = n_ranks, .peers = xcalloc((size_t)n_ranks * sizeof *star.peers)};
    for (int r = 0; r < n_ranks; r++) star.peers[r].fd = -1;
    gethostname(star.peers[rank].host, STAR_HOST_BYTES - 1);
    return star;
}

struct Star star_alone(void) {
    return star_empty(0, 1);
}

void star_close(struct Star *star) {
    for (int r = 0; star->peers && r < star->n_ranks; r++)
        if (star->peers[r].fd >= 0) close(star->peers[r].fd);
    free(star->peers);
    *star = (struct Star){0};
}

int star_listen(struct StarAddress *address, struct Error *err) {
    int listening = socket_listen("0", err);
    if (listening < 0) return -1;
    socket_address(listening, address->where);
    TMD_CHECK(getrandom(&address->key, sizeof address->key, 0) == sizeof address->key,
              "the system gives no random numbers");
    return listening;
}

/* ---- the first rank ---- */

static void list_missing(const struct Star *star, char *text, size_t n_bytes) {
    enum { NAMED = 16 };
    int n = 0;
    size_t used = 0;
    for (int r = 1; r < star->n_ranks; r++) {
        if (star->peers[r].fd >= 0 || n++ >= NAMED) continue;
        used += (size_t)snprintf(text + used, n_bytes - used, "%s%d", n > 1 ? ", " : "", r);
    }
    if (n > NAMED) snprintf(text + used, n_bytes - used, " and %d more", n - NAMED);
}

/* Takes one connection, unless it is a stranger's.  False only if who came cannot be right. */
static bool admit(struct Star *star, int fd, uint64_t key, struct Error *err) {
    struct Greeting other;
    double until = wall_seconds() + GREETING_SECONDS;
    if (!greeted(fd, key, until, &other) || !greet(fd, greeting_of(key, 0, star->n_ranks)) ||
        !greeted(fd, key, until, &other)) {
        close(fd);
        return true;
    }
    if (other.n_ranks != star->n_ranks || other.rank < 1 || other.rank >= star->n_ranks) {
        close(fd);
        return error_set(err,
                         "a process on host %s says it is rank %d of %d; rank 0 expects %d ranks",
                         other.host, other.rank, other.n_ranks, star->n_ranks);
    }
    struct StarPeer *peer = &star->peers[other.rank];
    if (peer->fd >= 0) {
        close(fd);
        return error_set(err, "two processes, on hosts %s and %s, say they are rank %d", peer->host,
                         other.host, other.rank);
    }
    peer->fd = fd;
    memcpy(peer->host, other.host, sizeof peer->host);
    return true;
}

static int count_missing(const struct Star *star) {
    int n = 0;
    for (int r = 1; r < star->n_ranks; r++) n += star->peers[r].fd < 0;
    return n;
}

bool star_lead(struct Star *star, int listening, const struct StarAddress *address, int n_ranks,
               double until, struct Error *err) {
    double begin = wall_seconds();
    *star = star_empty(0, n_ranks);
    bool ok = true;
    while (ok && count_missing(star)) {
        int fd = socket_accept(listening, until);
        if (fd >= 0) {
            ok = admit(star, fd, address->key, err);
        } else {
            char missing[256];
            list_missing(star, missing, sizeof missing);
            ok = error_set(err, "%d of %d ranks have not come to rank 0 at %s within %.0f s: %s",
                           count_missing(star), n_ranks, address->where, wall_seconds() - begin,
                           missing);
        }
    }
    close(listening);
    for (int r = 1; ok && r < n_ranks; r++)
        if (!greet(star->peers[r].fd, greeting_of(address->key, 0, n_ranks)))
            ok = error_set(err, "rank %d on host %s ended while ranks were still joining", r,
                           star->peers[r].host);
    if (!ok) star_close(star);
    return ok;
}

/* ---- the others ---- */

bool star_find_known(const void *context, struct StarAddress *address) {
    *address = *(const struct StarAddress *)context;
    return true;
}

/* A connection to the one who leads the star, or -1. */
static int find_leader(const struct StarAddress *address, struct Greeting own, double until,
                       struct Greeting *leader) {
    bool end = false;
    for (int choice = 0; !end; choice++) {
        double soon = fmin(until, wall_seconds() + GREETING_SECONDS);
        int fd = socket_connect(address->where, choice, soon, &end);
        if (fd < 0) continue;
        if (greet(fd, own) &&
            greeted(fd, address->key, wall_seconds() + GREETING_SECONDS, leader) && greet(fd, own))
            return fd;
        close(fd);
    }
    return -1;
}

bool star_follow(struct Star *star, int rank, int n_ranks, StarFind find, const void *context,
                 double until, struct Error *err) {
    static const struct timespec pause = {.tv_nsec = 50000000};
    struct StarAddress address = {0};
    struct Greeting leader;
    double begin = wall_seconds();
    int fd = -1;
    *star = star_empty(rank, n_ranks);
    while (fd < 0 && wall_seconds() < until) {
        if (find(context, &address))
            fd = find_leader(&address, greeting_of(address.key, rank, n_ranks), until, &leader);
        if (fd < 0) nanosleep(&pause, NULL);
    }
    star->peers[0].fd = fd;
    bool ok = fd >= 0;
    if (!ok) {
        error_set(err, "rank %d has not found rank 0 at %s within %.0f s", rank,
                  *address.where ? address.where : "any address", wall_seconds() - begin);
    } else if (leader.n_ranks != n_ranks) {
        ok = error_set(err, "rank %d is one of %d ranks, but rank 0 on host %s expects %d", rank,
                       n_ranks, leader.host, leader.n_ranks);
    } else if (!greeted(fd, address.key, until + GREETING_SECONDS, &leader)) {
        ok = error_set(err,
                       "rank %d found rank 0 on host %s, which gave up before all %d were there",
                       rank, leader.host, n_ranks);
    }
    memcpy(star->peers[0].host, leader.host, sizeof leader.host);
    if (!ok) star_close(star);
    return ok;
}
