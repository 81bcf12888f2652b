/* Which rank does what.  Ranks are divided twice, independently:
 *
 *     weights   rank = replica * n_shares + share     the n_shares ranks of a replica together hold
 *                                                     every role once (parallel.shard)
 *     samples   rank = data_rank * n_parts + part     the n_parts ranks of a data rank share the
 *                                                     tokens of its samples (parallel.sequence)
 *
 * In both, ranks that exchange most are neighbours, so that they are likely on one node.  If
 * nothing is sharded, there is one share, and every rank is a replica.
 *
 * Every data rank gets one sample of the global batch at least.  With parallel.shard full all get
 * equally many, because all ranks must run the same passes. */
#ifndef TMD_RANK_GRID_H
#define TMD_RANK_GRID_H

#include "train/config.h"

struct RankGrid {
    int n_ranks, rank;
    int n_replicas, replica, n_shares, share; /* of the weights */
    int n_data, data_rank, n_parts, part;     /* of the samples */
};

/* An error when the ranks cannot be divided as the configuration wants. */
bool rank_grid_init(struct RankGrid *grid, const struct Config *config, int n_ranks, int rank,
                    struct Error *err);
/* One rank that has everything. */
struct RankGrid rank_grid_alone(void);

/* The first sample of a data rank's share of the global batch; the next one's is where it ends. */
static inline int64_t batch_share_start(const struct Config *config, const struct RankGrid *grid,
                                        int64_t data_rank) {
    return config->train.global_batch * data_rank / grid->n_data;
}
/* Samples of this rank's share. */
static inline int64_t batch_share(const struct Config *config, const struct RankGrid *grid) {
    return batch_share_start(config, grid, grid->data_rank + 1) -
           batch_share_start(config, grid, grid->data_rank);
}

#endif
