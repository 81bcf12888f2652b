/* The split's parcels are the communicator's parts. */
#include "train/token_exchange.h"

static void exchange(void *context, void *recv, const struct TokenParcel *recv_parcels,
                     const void *send, const struct TokenParcel *send_parcels) {
    struct Comm *comm = context;
    struct CommPart recv_parts[TOKEN_MAX_PARTS], send_parts[TOKEN_MAX_PARTS];
    for (int r = 0; r < comm->n_ranks; r++) {
        recv_parts[r] = (struct CommPart){recv_parcels[r].at, recv_parcels[r].n_bytes};
        send_parts[r] = (struct CommPart){send_parcels[r].at, send_parcels[r].n_bytes};
    }
    comm->wait(comm, comm->exchange_start(comm, recv, recv_parts, send, send_parts));
}

struct TokenSplit token_split_over(struct Comm *parts, int64_t tokens) {
    TMD_CHECK(parts->n_ranks <= TOKEN_MAX_PARTS && parts->n_ranks <= tokens,
              "%lld tokens over %d ranks", (long long)tokens, parts->n_ranks);
    return (struct TokenSplit){.part = parts->rank,
                               .n_parts = parts->n_ranks,
                               .tokens = tokens,
                               .context = parts,
                               .exchange = exchange};
}
