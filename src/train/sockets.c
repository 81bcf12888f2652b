/* Every call that may wait polls its non-blocking socket until it is ready or the time is over. */
#include "train/sockets.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <math.h>
#include <net/if.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "train/phase_timer.h"

/* Small messages leave at once, a connection does not outlive its host for long, and no child
 * inherits it. */
static int prepared(int fd) {
    static const struct {
        int level, option, value;
    } options[] = {{SOL_SOCKET, SO_KEEPALIVE, 1},
                   {IPPROTO_TCP, TCP_NODELAY, 1},
                   {IPPROTO_TCP, TCP_KEEPIDLE, 10},
                   {IPPROTO_TCP, TCP_KEEPINTVL, 5},
                   {IPPROTO_TCP, TCP_KEEPCNT, 4}};
    if (fd < 0) return -1;
    for (size_t i = 0; i < sizeof options / sizeof *options; i++)
        setsockopt(fd, options[i].level, options[i].option, &options[i].value, sizeof(int));
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    return fd;
}

/* Until the socket is ready for `events`, or has failed. */
static bool wait_for(int fd, short events, double until) {
    for (;;) {
        struct pollfd poll_fd = {.fd = fd, .events = events};
        double left = until - wall_seconds();
        int ready = left < 0.0 ? 0 : poll(&poll_fd, 1, left < 1e6 ? (int)ceil(1e3 * left) : -1);
        if (ready >= 0) return ready > 0;
        if (errno != EINTR) return false;
    }
}

static bool again(void) {
    return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

bool socket_send(int fd, const void *bytes, int64_t n_bytes, double until) {
    const char *at = bytes, *end = at + n_bytes;
    while (at < end) {
        ssize_t n = send(fd, at, (size_t)(end - at), MSG_NOSIGNAL);
        if (n > 0)
            at += n;
        else if (!again() || !wait_for(fd, POLLOUT, until))
            return false;
    }
    return true;
}

bool socket_receive(int fd, void *bytes, int64_t n_bytes, double until) {
    char *at = bytes, *end = at + n_bytes;
    while (at < end) {
        ssize_t n = recv(fd, at, (size_t)(end - at), 0);
        if (n > 0)
            at += n;
        else if (n == 0 || !again() || !wait_for(fd, POLLIN, until))
            return false;
    }
    return true;
}

enum SocketNews socket_news(int fd, void *bytes, int64_t n_bytes) {
    ssize_t n = recv(fd, bytes, (size_t)n_bytes, MSG_PEEK);
    if (n == 0 || (n < 0 && !again())) return SOCKET_GONE;
    if (n < n_bytes) return SOCKET_NOTHING;
    return recv(fd, bytes, (size_t)n_bytes, 0) == n_bytes ? SOCKET_MESSAGE : SOCKET_GONE;
}

int socket_accept(int listening, double until) {
    while (wait_for(listening, POLLIN, until)) {
        int fd = prepared(accept(listening, NULL, NULL));
        if (fd >= 0) return fd;
        if (!again() && errno != ECONNABORTED) return -1;
    }
    return -1;
}

/* IPv6, which takes IPv4 as well; IPv4 where there is no other. */
static int listen_in(int family, const char *port, int *number) {
    struct addrinfo hints = {.ai_family = family,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_PASSIVE | AI_NUMERICSERV},
                    *found;
    int on = 1, off = 0;
    if (getaddrinfo(NULL, port, &hints, &found) != 0) return -1;
    int fd = socket(family, SOCK_STREAM, 0);
    if (fd >= 0) {
        /* a port that an earlier job has just left is free */
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
        if (family == AF_INET6) setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof off);
        if (bind(fd, found->ai_addr, found->ai_addrlen) != 0 || listen(fd, SOMAXCONN) != 0) {
            *number = errno;
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(found);
    return prepared(fd);
}

int socket_listen(const char *port, struct Error *err) {
    int number = EAFNOSUPPORT;
    int fd = listen_in(AF_INET6, port, &number);
    if (fd < 0) fd = listen_in(AF_INET, port, &number);
    if (fd < 0) error_set(err, "cannot listen at port %s: %s", port, strerror(number));
    return fd;
}

static bool usable(const struct ifaddrs *interface, bool loopback) {
    const struct sockaddr *address = interface->ifa_addr;
    if (!address || !(interface->ifa_flags & IFF_UP)) return false;
    if (!(interface->ifa_flags & IFF_LOOPBACK) == loopback) return false;
    if (address->sa_family == AF_INET) return true;
    /* link-local ones are of use only with the name of an interface, which each host has its own */
    return address->sa_family == AF_INET6 &&
           !IN6_IS_ADDR_LINKLOCAL(&((const struct sockaddr_in6 *)address)->sin6_addr);
}

/* Appends the addresses of the interfaces; how many. */
static int append_hosts(const struct ifaddrs *interfaces, bool loopback, char *address) {
    char host[64];
    int n = 0;
    for (const struct ifaddrs *i = interfaces; i; i = i->ifa_next) {
        if (!usable(i, loopback)) continue;
        socklen_t n_bytes = i->ifa_addr->sa_family == AF_INET ? sizeof(struct sockaddr_in)
                                                              : sizeof(struct sockaddr_in6);
        size_t used = strlen(address);
        if (getnameinfo(i->ifa_addr, n_bytes, host, sizeof host, NULL, 0, NI_NUMERICHOST) != 0 ||
            used + strlen(host) + 2 > SOCKET_ADDRESS_BYTES)
            continue;
        snprintf(address + used, SOCKET_ADDRESS_BYTES - used, " %s", host);
        n++;
    }
    return n;
}

void socket_address(int listening, char address[SOCKET_ADDRESS_BYTES]) {
    struct sockaddr_storage own;
    struct ifaddrs *interfaces = NULL;
    char port[16];
    socklen_t n_bytes = sizeof own;
    const char *host = getenv("TMD_HOST");
    TMD_CHECK(getsockname(listening, (struct sockaddr *)&own, &n_bytes) == 0 &&
                  getnameinfo((struct sockaddr *)&own, n_bytes, NULL, 0, port, sizeof port,
                              NI_NUMERICSERV) == 0,
              "%s", strerror(errno));
    snprintf(address, SOCKET_ADDRESS_BYTES, "%s%s%.400s", port, host ? " " : "", host ? host : "");
    if (host) return;
    if (getifaddrs(&interfaces) == 0 && !append_hosts(interfaces, false, address))
        append_hosts(interfaces, true, address);
    freeifaddrs(interfaces);
}

static bool word_of(const char *text, int choice, char *word, size_t n_bytes) {
    for (; choice > 0; choice--) {
        text += strcspn(text, " ");
        text += strspn(text, " ");
    }
    snprintf(word, n_bytes, "%.*s", (int)strcspn(text, " "), text);
    return *word;
}

static int connect_to(const struct addrinfo *to, double until) {
    int error = 0, fd = prepared(socket(to->ai_family, to->ai_socktype, 0));
    socklen_t n_bytes = sizeof error;
    if (fd < 0) return -1;
    if (connect(fd, to->ai_addr, to->ai_addrlen) == 0 ||
        (errno == EINPROGRESS && wait_for(fd, POLLOUT, until) &&
         getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &n_bytes) == 0 && error == 0))
        return fd;
    close(fd);
    return -1;
}

int socket_connect(const char *address, int choice, double until, bool *end) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *found;
    char port[16], host[256];
    *end =
        !word_of(address, 0, port, sizeof port) || !word_of(address, choice + 1, host, sizeof host);
    if (*end || getaddrinfo(host, port, &hints, &found) != 0) return -1;
    int fd = -1;
    for (const struct addrinfo *to = found; to && fd < 0; to = to->ai_next)
        fd = connect_to(to, until);
    freeaddrinfo(found);
    return fd;
}
