/* The operations over TCP, for 1 to 5 ranks, against what plain loops say; sub-communicators; and
 * the end of all ranks when one is gone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../data/scratch.h"
#include "process_ranks.h"
#include "train/comm_tcp.h"

/* In a rank there is no test to fail, only an exit code. */
#define EXPECT(condition)                                                                          \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "line %d: %s\n", __LINE__, #condition);                                \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

/* Rank r's element i: sums of these depend on the order in which they are added. */
static float element(int rank, int64_t i) {
    return (float)((i * 7919 + rank * 104729) % 1000003) * 1e-4f - 30.0f;
}

static float *elements(int rank, int64_t n_elems) {
    float *all = xmalloc((size_t)(n_elems + 1) * sizeof *all);
    for (int64_t i = 0; i < n_elems; i++) all[i] = element(rank, i);
    return all;
}

static float sum_at(int n_ranks, int64_t i) {
    float sum = element(0, i);
    for (int r = 1; r < n_ranks; r++) sum += element(r, i);
    return sum;
}

static void expect_sum(struct Comm *comm, int64_t n_elems) {
    float *buffer = elements(comm->rank, n_elems);
    int64_t sent = comm->sent_bytes, n = comm->n_ranks;
    CommTicket ticket = comm->sum_start(comm, buffer, n_elems);
    EXPECT(ticket == comm->last_ticket);
    comm->wait(comm, ticket);
    for (int64_t i = 0; i < n_elems; i++) EXPECT(buffer[i] == sum_at(comm->n_ranks, i));
    EXPECT(comm->sent_bytes - sent == 2 * (n - 1) * n_elems * (int64_t)sizeof *buffer / n);
    free(buffer);
}

static void expect_scatter_sum(struct Comm *comm, int64_t n_elems, bool in_place) {
    float *all = elements(comm->rank, comm->n_ranks * n_elems), *own = all + comm->rank * n_elems;
    if (!in_place) own = xcalloc((size_t)(n_elems + 1) * sizeof *own);
    comm->scatter_sum_start(comm, own, all, n_elems);
    comm->finish(comm);
    for (int64_t i = 0; i < n_elems; i++)
        EXPECT(own[i] == sum_at(comm->n_ranks, comm->rank * n_elems + i));
    if (!in_place) free(own);
    free(all);
}

static void expect_gather(struct Comm *comm, int64_t n_elems, bool in_place) {
    float *all = xcalloc((size_t)(comm->n_ranks * n_elems + 1) * sizeof *all);
    float *own = elements(comm->rank, n_elems), *from = own;
    if (in_place) from = memcpy(all + comm->rank * n_elems, own, (size_t)n_elems * sizeof *own);
    comm->gather_start(comm, all, from, n_elems * (int64_t)sizeof *all);
    comm->finish(comm);
    for (int r = 0; r < comm->n_ranks; r++)
        for (int64_t i = 0; i < n_elems; i++) EXPECT(all[r * n_elems + i] == element(r, i));
    free(own);
    free(all);
}

/* Elements that `from` sends to `to`: none for some, more than fits one part for others. */
static int64_t n_between(int from, int to) {
    static const int64_t sizes[] = {0, 1, 13, 70001, 5};
    return sizes[(from * 3 + to) % 5];
}

static void expect_exchange(struct Comm *comm) {
    enum { ROOM = 70004 };
    int n = comm->n_ranks;
    struct CommPart *send = xcalloc((size_t)n * sizeof *send),
                    *recv = xcalloc((size_t)n * sizeof *recv);
    float *out = elements(comm->rank, n * ROOM), *in = xcalloc((size_t)(n * ROOM) * sizeof *in);
    int64_t to_others = 0, sent = comm->sent_bytes;
    for (int r = 0; r < n; r++) {
        int64_t place = r * ROOM * (int64_t)sizeof *out;
        send[r] = (struct CommPart){place, n_between(comm->rank, r) * (int64_t)sizeof *out};
        recv[r] = (struct CommPart){place, n_between(r, comm->rank) * (int64_t)sizeof *in};
        if (r != comm->rank) to_others += send[r].n_bytes;
    }
    comm->exchange_start(comm, in, recv, out, send);
    comm->finish(comm);
    for (int r = 0; r < n; r++)
        for (int64_t i = 0; i < ROOM; i++) {
            float expected =
                i < n_between(r, comm->rank) ? element(r, comm->rank * ROOM + i) : 0.0f;
            EXPECT(in[r * ROOM + i] == expected);
        }
    EXPECT(comm->sent_bytes - sent == to_others);
    free(send);
    free(recv);
    free(out);
    free(in);
}

static void expect_host_operations(struct Comm *comm) {
    double values[3] = {comm->rank, 0.1 * comm->rank, 1.0}, sum = 0.0;
    comm->sum_f64(comm, values, 3);
    for (int r = 1; r < comm->n_ranks; r++) sum += 0.1 * r;
    EXPECT(values[0] == comm->n_ranks * (comm->n_ranks - 1) / 2 && values[1] == sum);
    EXPECT(values[2] == comm->n_ranks);
    for (int root = 0; root < comm->n_ranks; root++) {
        char word[300000];
        memset(word, comm->rank == root ? 'a' + root : '?', sizeof word);
        comm->broadcast(comm, word, sizeof word, root);
        for (size_t i = 0; i < sizeof word; i++) EXPECT(word[i] == 'a' + root);
    }
}

static void expect_all(struct Comm *comm) {
    static const int64_t sizes[] = {0, 1, 5, 65536, 65537, 300001};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        expect_sum(comm, sizes[i]);
        for (int in_place = 0; in_place < 2; in_place++) {
            expect_scatter_sum(comm, sizes[i], in_place);
            expect_gather(comm, sizes[i], in_place);
        }
    }
    expect_exchange(comm);
    expect_host_operations(comm);
}

static struct Comm *meet(void) {
    struct Error err;
    struct Comm *comm = comm_tcp_create(&err);
    if (!comm) exit(error_report(&err));
    return comm;
}

static int all_operations(int rank, void *context) {
    (void)context;
    struct Comm *comm = meet();
    EXPECT(comm->rank == rank && comm->local_rank == rank && strcmp(comm->name, "tcp") == 0);
    expect_all(comm);
    EXPECT(comm->last_ticket == 31);
    comm->destroy(comm);
    return 0;
}

static void test_operations(void **state) {
    for (int n = 1; n <= 5; n++) {
        char place[64];
        ranks_place_tcp(place);
        ranks_run(n, place, *state, all_operations, NULL);
    }
}

/* Ranks {0, 1} and {2, 3}, then {0, 2} and {1, 3}, at work at different times. */
static int groups(int rank, void *context) {
    (void)context;
    struct Comm *comm = meet(), *near = comm->split(comm, 2, 1), *far = comm->split(comm, 2, 2);
    struct Comm *alone = far->split(far, 1, 1);
    EXPECT(near->n_ranks == 2 && near->rank == rank % 2);
    EXPECT(far->n_ranks == 2 && far->rank == rank / 2);
    EXPECT(alone->n_ranks == 1 && alone->rank == 0);
    double values[3] = {rank, rank, rank};
    if (rank < 2) usleep(50000);
    near->sum_f64(near, &values[0], 1);
    far->sum_f64(far, &values[1], 1);
    alone->sum_f64(alone, &values[2], 1);
    EXPECT(values[0] == (rank < 2 ? 1.0 : 5.0));
    EXPECT(values[1] == (rank % 2 ? 4.0 : 2.0));
    EXPECT(values[2] == rank);
    expect_all(near);
    expect_all(far);
    alone->destroy(alone);
    far->destroy(far);
    near->destroy(near);
    expect_host_operations(comm);
    comm->destroy(comm);
    return 0;
}

static void test_groups(void **state) {
    char *place = xprintf("file://%s/meet", (char *)*state);
    ranks_run(4, place, *state, groups, NULL);
    assert_int_equal(scratch_count(*state, "meet"), 0);
    free(place);
}

/* One rank leaves between two operations; all others wait in the second. */
static int leaves(int rank, void *context) {
    const int *who = context;
    struct Comm *comm = meet();
    double value = 1.0;
    comm->sum_f64(comm, &value, 1);
    if (rank == *who) return 7;
    comm->sum_f64(comm, &value, 1);
    return 0;
}

static void test_lost(void **state) {
    struct RankGroup *group = xmalloc(sizeof *group);
    for (int who = 0; who < 3; who++) {
        char place[64], message[64];
        ranks_place_tcp(place);
        ranks_start(group, 4, place, *state, leaves, &who);
        ranks_await(group, 20.0);
        snprintf(message, sizeof message, "rank %d ", who);
        for (int r = 0; r < 4; r++) {
            const struct RankProcess *rank = &group->ranks[r];
            assert_int_equal(rank->exit_code, r == who ? 7 : EXIT_FAILED);
            if (r == who) continue;
            assert_non_null(strstr(rank->errors, message));
            assert_non_null(strstr(rank->errors, "is gone"));
        }
    }
    free(group);
}

/* Ranks that do not ask for the same are told, instead of taking one thing for another. */
static int disagrees(int rank, void *context) {
    (void)context;
    struct Comm *comm = meet();
    double values[2] = {0.0, 0.0};
    comm->sum_f64(comm, values, rank ? 1 : 2);
    return 0;
}

static void test_disagreement(void **state) {
    char place[64];
    struct RankGroup *group = xmalloc(sizeof *group);
    ranks_place_tcp(place);
    ranks_start(group, 2, place, *state, disagrees, NULL);
    ranks_await(group, 20.0);
    assert_int_equal(group->ranks[0].exit_code, EXIT_FAILED);
    assert_int_equal(group->ranks[1].exit_code, EXIT_FAILED);
    assert_non_null(strstr(group->ranks[0].errors, "rank 1 sent 8 bytes, rank 0 expects 16"));
    free(group);
}

int main(void) {
    const struct CMUnitTest tests[] = {WITH_FOLDER(test_operations), WITH_FOLDER(test_groups),
                                       WITH_FOLDER(test_lost), WITH_FOLDER(test_disagreement)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
