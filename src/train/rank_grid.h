/* Who of the ranks does what.
 *
 *     rank = (replica * n_shares + share);   the shares of a replica hold each role together
 *     rank = (data_rank * n_parts + part);   the parts of a data rank share its samples' tokens
 *
 * Neighbouring ranks come first in both, so that what is exchanged most stays within a node.  Where
 * nothing is sharded there is one share, and every rank is a replica.
 *
 * Each data rank needs a sample of the global batch.  Where whole units are gathered as they are needed
 * all ranks run the same passes, and so all have equally many samples. */
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
