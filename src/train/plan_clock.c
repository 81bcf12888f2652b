/* The formulas of the header. */
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
    bool host = op == OP_upload || op == OP_upload_start || op == OP_download ||
                op == OP_download_start;
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
    *link = (struct PlanLink){.inside = fmin(network->inside.bandwidth, machine->link_bandwidth) *
                                        network->inside.reached,
                              .adapter = network->across.bandwidth * network->across.reached,
                              .message_seconds = network->message_seconds,
                              .node_gpus = machine->node_gpus};
    if (n_gpus <= machine->node_gpus || link->adapter > 0.0) return true;
    return error_set(err,
                     "--network '%s' joins the %lld GPUs of one node, got --gpus %d; choose a "
                     "network that leaves the node",
                     network->name, (long long)machine->node_gpus, n_gpus);
}

double plan_ring_bytes(int rounds, double buffer_bytes, int n_ranks) {
    return (double)rounds * (n_ranks - 1) / n_ranks * buffer_bytes;
}

double plan_ring_rate(const struct PlanLink *link, int n_ranks, int stride) {
    if ((int64_t)(n_ranks - 1) * stride < link->node_gpus) return link->inside;
    int64_t n_adapters = stride < link->node_gpus ? link->node_gpus / stride : 1;
    return fmin(link->inside, (double)n_adapters * link->adapter);
}

double plan_ring_seconds(const struct PlanLink *link, double sent_bytes, int n_ranks, int stride) {
    return link->message_seconds + sent_bytes / plan_ring_rate(link, n_ranks, stride);
}

double plan_exchange_seconds(const struct PlanLink *link, double near_bytes, double far_bytes) {
    double far_seconds = far_bytes > 0.0 ? far_bytes / link->adapter : 0.0;
    return link->message_seconds + fmax(near_bytes / link->inside, far_seconds);
}
