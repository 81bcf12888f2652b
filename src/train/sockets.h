/* TCP connections with time limits, for ranks that talk without MPI (star.h).
 *
 * Times `until` are those of wall_seconds(); INFINITY: no limit.  Sockets are non-blocking
 * underneath, interrupted calls go on, and a peer that is gone gives an error, never a signal. */
#ifndef TMD_SOCKETS_H
#define TMD_SOCKETS_H

#include <stdbool.h>
#include <stdint.h>

#include "error.h"

/* "PORT HOST [HOST ...]": where a process listens, under every name by which others may know its
 * host. */
enum { SOCKET_ADDRESS_BYTES = 512 };

/* Listens at `port` of every interface; 0: any free port.  -1: no. */
int socket_listen(const char *port, struct Error *err);

/* The address of a socket that listens: $TMD_HOST if given, else the addresses of the host's
 * interfaces; those that lead nowhere from elsewhere do no harm, for the other end is asked who it
 * is. */
void socket_address(int listening, char address[SOCKET_ADDRESS_BYTES]);

/* The next connection, or -1 when the time is over. */
int socket_accept(int listening, double until);

/* A connection to one host of an address, the `choice`th; -1: not to be had (now).  *end: there is
 * no such host. */
int socket_connect(const char *address, int choice, double until, bool *end);

/* Exactly n_bytes.  False: the time is over, or the other end is gone. */
bool socket_send(int fd, const void *bytes, int64_t n_bytes, double until);
bool socket_receive(int fd, void *bytes, int64_t n_bytes, double until);

/* A message of n_bytes, taken whole if it is there, without waiting. */
enum SocketNews { SOCKET_MESSAGE, SOCKET_NOTHING, SOCKET_GONE };
enum SocketNews socket_news(int fd, void *bytes, int64_t n_bytes);

#endif
