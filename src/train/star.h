/* A star of TCP connections: one from each rank to the first.
 *
 * The first rank listens; the others get its address in some way (rendezvous.h).  Both ends say who
 * they are, and name a key that tells this star from others.  So a connection by a stranger, or to
 * an address that is out of date, is dropped, and the next one tried.
 *
 *     rank r -> 0:   magic, key, r, n_ranks, host       once it is connected
 *     0 -> rank r:   magic, key, 0, n_ranks, host       r has found the right one
 *     rank r -> 0:   as before                          r has not lost patience meanwhile
 *     0 -> rank r:   as before                          all ranks are there
 *
 * Numbers travel in the byte order of the hosts, which is the same on all. */
#ifndef TMD_STAR_H
#define TMD_STAR_H

#include "train/sockets.h"

enum { STAR_HOST_BYTES = 64 };

struct StarAddress {
    uint64_t key;
    char where[SOCKET_ADDRESS_BYTES];
};

struct StarPeer {
    int fd; /* -1: no connection, as of this rank with itself */
    char host[STAR_HOST_BYTES];
};

struct Star {
    int rank, n_ranks;
    struct StarPeer *peers; /* [n_ranks]; on rank 0 those from 1 on are connected, else peer 0 */
};

/* A rank without others. */
struct Star star_alone(void);

/* For a star of this program's own making: listens somewhere, with a key that nobody else has. */
int star_listen(struct StarAddress *address, struct Error *err);

/* On rank 0: waits for all others, and closes `listening`.  An error names who has not come by
 * then. */
bool star_lead(struct Star *star, int listening, const struct StarAddress *address, int n_ranks,
               double until, struct Error *err);

/* The address as it is known now; false: not yet. */
typedef bool (*StarFind)(const void *context, struct StarAddress *address);
/* StarFind of one that is known: context is the struct StarAddress. */
bool star_find_known(const void *context, struct StarAddress *address);

/* On the others: looks for the address and connects, again and again until it comes about. */
bool star_follow(struct Star *star, int rank, int n_ranks, StarFind find, const void *context,
                 double until, struct Error *err);

/* Harmless on zeros. */
void star_close(struct Star *star);

#endif
