/* What GPUs and networks can do, as `tmd plan` needs it: small YAML tables, in which every key must
 * stand exactly once.  configs/machines/gpu/ and configs/machines/network/ hold some, with sources.
 *
 * Bandwidths are bytes per second, of links per GPU and in one direction. */
#ifndef TMD_MACHINE_H
#define TMD_MACHINE_H

#include <stdint.h>

#include "error.h"

enum { MACHINE_NAME_BYTES = 64 };

/* One GPU, and the node that it stands in. */
struct Machine {
    char name[MACHINE_NAME_BYTES];
    double flops; /* per second at most: dense products of bf16, sums in f32 */
    double memory_bytes, memory_bandwidth;
    double host_bandwidth; /* to and from the host's memory */
    double reserved_bytes; /* of memory: what others than the run's own buffers take */
    double launch_seconds; /* what an operation takes at least */
    struct {               /* shares: of `flops`, or of `memory_bandwidth` */
        double products, attention_forward, attention_backward, convolutions, memory;
    } reached;
    int64_t node_gpus;     /* in a node */
    double link_bandwidth; /* between them */
};

struct NetworkPart {
    double bandwidth, reached; /* the share of it that is left to the data */
};

struct Network {
    char name[MACHINE_NAME_BYTES];
    struct NetworkPart inside; /* a node: or the GPU's own links, where these are slower */
    struct NetworkPart across; /* nodes; bandwidth 0: the network does not leave a node */
    double message_seconds;    /* what a sum over ranks takes at least */
};

/* Fail with one sentence that names file, line, key, what was expected and what stands there. */
bool machine_load(struct Machine *machine, const char *path, struct Error *err);
bool network_load(struct Network *network, const char *path, struct Error *err);

#endif
