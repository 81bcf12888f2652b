#include "train/plan_clock.h"

#include <math.h>

/* Flops per second that an operation of this kind reaches. */
static double reached_flops(const struct Machine *m, enum Op op) {
    switch (op) {
    case OP_attention_forward:
        return m->flops * m->reached.attention_forward;
    case OP_attention_backward:
        return m->flops * m->reached.attention_backward;
    case OP_conv3d_forward:
    case OP_conv3d_backward_input:
    case OP_conv3d_backward_params:
        return m->flops * m->reached.convolutions;
    default:
        return m->flops * m->reached.products;
    }
}

static double reached_bandwidth(const struct Machine *m, enum Op op) {
    bool host = op == OP_upload || op == OP_download;
    return host ? m->host_bandwidth : m->memory_bandwidth * m->reached.memory;
}

static double seconds_of(const void *machine, enum Op op, struct OpCost cost) {
    const struct Machine *m = machine;
    return m->launch_seconds +
           fmax(cost.flops / reached_flops(m, op), cost.bytes / reached_bandwidth(m, op));
}

struct PlanClock plan_clock(const struct Machine *machine) {
    return (struct PlanClock){.seconds = seconds_of, .machine = machine};
}

bool plan_link(struct PlanLink *link, const struct Machine *machine, const struct Network *network,
               int n_gpus, struct Error *err) {
    double inside =
        fmin(network->inside.bandwidth, machine->link_bandwidth) * network->inside.reached;
    *link = (struct PlanLink){inside, network->message_seconds};
    if (n_gpus <= machine->node_gpus) return true;
    if (network->across.bandwidth == 0.0)
        return error_set(err,
                         "--network '%s' joins the %lld GPUs of one node, got --gpus %d; choose a "
                         "network that leaves the node",
                         network->name, (long long)machine->node_gpus, n_gpus);
    double adapters =
        (double)machine->node_gpus * network->across.bandwidth * network->across.reached;
    link->bandwidth = fmin(inside, adapters);
    return true;
}

double plan_sum_bytes(double buffer_bytes, int n_ranks) {
    return 2.0 * (n_ranks - 1) / n_ranks * buffer_bytes;
}

double plan_sum_seconds(const struct PlanLink *link, double buffer_bytes, int n_ranks) {
    return link->message_seconds + plan_sum_bytes(buffer_bytes, n_ranks) / link->bandwidth;
}
