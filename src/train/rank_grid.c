/* Divides the rank's number, after checks that the division is even. */
#include "train/rank_grid.h"

static bool divides(int n_ranks, int64_t by, const char *key, struct Error *err) {
    return n_ranks % by == 0 ||
           error_set(err, "%s is %lld, which must divide the number of ranks, but there are %d", key,
                     (long long)by, n_ranks);
}

static bool share_batch(const struct RankGrid *g, const struct Config *config, struct Error *err) {
    int64_t batch = config->train.global_batch;
    if (batch < g->n_data)
        return error_set(err, "train.global_batch is %lld, but there are %d ranks%s, each of which "
                              "needs a sample", (long long)batch, g->n_data,
                         g->n_parts > 1 ? " that share no samples" : "");
    return config->parallel.shard != SHARD_FULL || g->n_shares == 1 || batch % g->n_data == 0 ||
           error_set(err, "train.global_batch is %lld, which %d ranks must divide evenly where "
                          "parallel.shard is full", (long long)batch, g->n_data);
}

struct RankGrid rank_grid_alone(void) {
    return (struct RankGrid){
        .n_ranks = 1, .n_replicas = 1, .n_shares = 1, .n_data = 1, .n_parts = 1};
}

bool rank_grid_init(struct RankGrid *grid, const struct Config *config, int n_ranks, int rank,
                    struct Error *err) {
    const struct ParallelConfig *p = &config->parallel;
    if (!divides(n_ranks, p->sequence, "parallel.sequence", err) ||
        !divides(n_ranks, p->replicas, "parallel.replicas", err))
        return false;
    int n_shares = p->shard == SHARD_NONE ? 1 : n_ranks / (int)p->replicas, n_parts = (int)p->sequence;
    *grid = (struct RankGrid){.n_ranks = n_ranks,
                              .rank = rank,
                              .n_replicas = n_ranks / n_shares,
                              .replica = rank / n_shares,
                              .n_shares = n_shares,
                              .share = rank % n_shares,
                              .n_data = n_ranks / n_parts,
                              .data_rank = rank / n_parts,
                              .n_parts = n_parts,
                              .part = rank % n_parts};
    return share_batch(grid, config, err);
}
