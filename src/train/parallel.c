#include "train/parallel.h"

/* A group of all ranks is the world, without another communicator. */
static struct Comm *group(struct Comm *world, int n_ranks, int stride) {
    if (n_ranks == 1) return NULL;
    return n_ranks == world->n_ranks ? world : world->split(world, n_ranks, stride);
}

void parallel_open(struct Parallel *parallel, const struct RankGrid *g, struct Comm *world) {
    *parallel = (struct Parallel){.grid = *g,
                                  .world = world,
                                  .shares = group(world, g->n_shares, 1),
                                  .replicas = group(world, g->n_replicas, g->n_shares),
                                  .parts = group(world, g->n_parts, 1)};
}

/* Those that are not the world. */
enum { GROUPS = 3 };
static void groups_of(const struct Parallel *p, struct Comm *groups[GROUPS]) {
    struct Comm *all[GROUPS] = {p->parts, p->replicas, p->shares};
    for (int i = 0; i < GROUPS; i++) groups[i] = all[i] == p->world ? NULL : all[i];
}

int64_t parallel_sent_bytes(const struct Parallel *parallel) {
    struct Comm *groups[GROUPS];
    int64_t sum = parallel->world->sent_bytes;
    groups_of(parallel, groups);
    for (int i = 0; i < GROUPS; i++)
        if (groups[i]) sum += groups[i]->sent_bytes;
    return sum;
}

void parallel_close(struct Parallel *parallel) {
    struct Comm *groups[GROUPS];
    groups_of(parallel, groups);
    for (int i = 0; i < GROUPS; i++)
        if (groups[i]) groups[i]->destroy(groups[i]);
    *parallel = (struct Parallel){0};
}
