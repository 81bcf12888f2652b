/* The operations of a communicator against plain sums and copies, on all ranks together and on the
 * groups that they split into.
 *
 *     [mpirun -np N] test_comm cpu|cuda
 *
 * covers `self` (one rank), `mpi` (cpu) or `nccl` (cuda).  Values are small integers, whose sums
 * are exact in any order.  The first failure ends all ranks. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/backend_open.h"
#include "train/comm.h"

/* The ranks first, first + stride, ... of the world. */
struct Group {
    struct Comm *comm;
    const struct Backend *be;
    int first, stride;
};

static const int64_t sizes[] = {0, 1, 2, 7, 64, 1001, 40009};
enum { N_SIZES = sizeof sizes / sizeof *sizes, MAX_RANKS = 16 };

/* What rank r of the group has for element i of buffer `salt`. */
static float value(const struct Group *g, int r, int64_t i, int salt) {
    return (float)((17 * (g->first + r * g->stride) + 5 * salt + 3 * i) % 101);
}

static float sum_of_values(const struct Group *g, int64_t i, int salt) {
    float sum = 0.0f;
    for (int r = 0; r < g->comm->n_ranks; r++) sum += value(g, r, i, salt);
    return sum;
}

/* ---- memory of the backend and its copy on the host, float32 ---- */

struct Buffer {
    const struct Backend *be;
    float *device, *host;
    int64_t n_elems;
};

static struct Buffer buffer_make(const struct Group *g, int64_t n_elems) {
    int64_t n_bytes = (n_elems + 1) * (int64_t)sizeof(float);
    struct Buffer b = {g->be, g->be->memory_alloc(g->be, n_bytes), xcalloc((size_t)n_bytes),
                       n_elems};
    return b;
}

static void buffer_upload(const struct Buffer *b) {
    b->be->upload(b->be, b->device, b->host, b->n_elems * (int64_t)sizeof(float));
}

static void buffer_download(const struct Buffer *b) {
    memset(b->host, 0xff, (size_t)b->n_elems * sizeof(float));
    b->be->download(b->be, b->host, b->device, b->n_elems * (int64_t)sizeof(float));
}

static void buffer_free(struct Buffer *b) {
    b->be->memory_free(b->be, b->device);
    free(b->host);
}

/* This rank's values. */
static struct Buffer buffer_of_values(const struct Group *g, int64_t n_elems, int salt) {
    struct Buffer b = buffer_make(g, n_elems);
    for (int64_t i = 0; i < n_elems; i++) b.host[i] = value(g, g->comm->rank, i, salt);
    buffer_upload(&b);
    return b;
}

static void check_sum(const struct Group *g, const struct Buffer *b, int salt) {
    buffer_download(b);
    for (int64_t i = 0; i < b->n_elems; i++) assert_true(b->host[i] == sum_of_values(g, i, salt));
}

/* ---- each operation alone ---- */

/* Since `before`, with what a ring sends of n_bytes in one round. */
static void check_sent(const struct Comm *comm, int64_t before, int rounds, int64_t n_bytes) {
    double expected = (double)rounds * (comm->n_ranks - 1) / comm->n_ranks * (double)n_bytes;
    assert_true(fabs((double)(comm->sent_bytes - before) - expected) < 1.0);
}

static void check_sums(const struct Group *g) {
    struct Comm *comm = g->comm;
    for (int s = 0; s < N_SIZES; s++) {
        int64_t before = comm->sent_bytes;
        struct Buffer b = buffer_of_values(g, sizes[s], s);
        comm->wait(comm, comm->sum_start(comm, b.device, b.n_elems));
        check_sum(g, &b, s);
        check_sent(comm, before, 2, 4 * b.n_elems);
        buffer_free(&b);
    }
}

/* own: in `all`, or elsewhere. */
static void check_scatter_sum(const struct Group *g, int64_t n_elems, bool in_place) {
    struct Comm *comm = g->comm;
    int64_t before = comm->sent_bytes, first = comm->rank * n_elems;
    struct Buffer all = buffer_of_values(g, comm->n_ranks * n_elems, 1),
                  own = buffer_make(g, n_elems);
    float *target = in_place ? all.device + first : own.device;
    comm->wait(comm, comm->scatter_sum_start(comm, target, all.device, n_elems));
    if (in_place) g->be->copy(g->be, own.device, target, n_elems * (int64_t)sizeof *target);
    buffer_download(&own);
    for (int64_t i = 0; i < n_elems; i++)
        assert_true(own.host[i] == sum_of_values(g, first + i, 1));
    check_sent(comm, before, 1, 4 * all.n_elems);
    buffer_free(&all);
    buffer_free(&own);
}

static void check_gather(const struct Group *g, int64_t n_elems, bool in_place) {
    struct Comm *comm = g->comm;
    int64_t before = comm->sent_bytes, n_bytes = n_elems * (int64_t)sizeof(float);
    struct Buffer all = buffer_make(g, comm->n_ranks * n_elems),
                  own = buffer_of_values(g, n_elems, 2);
    float *place = all.device + comm->rank * n_elems;
    if (in_place) g->be->copy(g->be, place, own.device, n_bytes);
    comm->wait(comm, comm->gather_start(comm, all.device, in_place ? place : own.device, n_bytes));
    buffer_download(&all);
    for (int r = 0; r < comm->n_ranks; r++)
        for (int64_t i = 0; i < n_elems; i++)
            assert_true(all.host[r * n_elems + i] == value(g, r, i, 2));
    check_sent(comm, before, 1, 4 * all.n_elems);
    buffer_free(&all);
    buffer_free(&own);
}

static void check_shares(const struct Group *g) {
    for (int s = 0; s < N_SIZES; s++)
        for (int in_place = 0; in_place < 2; in_place++) {
            check_scatter_sum(g, sizes[s], in_place);
            check_gather(g, sizes[s], in_place);
        }
}

/* Half elements that go from rank `from` to rank `to`: many of them none. */
static int64_t n_halves(int from, int to, int64_t unit) {
    return unit * ((3 * from + to) % 4);
}

/* Parts of an exchange one behind the other, ranks downwards, with a gap of one half element
 * between. */
static int64_t lay_out(struct CommPart *parts, const struct Comm *comm, bool sends, int64_t unit) {
    int64_t at = 0;
    for (int r = comm->n_ranks - 1; r >= 0; r--) {
        int64_t n = sends ? n_halves(comm->rank, r, unit) : n_halves(r, comm->rank, unit);
        parts[r] = (struct CommPart){2 * at, 2 * n};
        at += n + 1;
    }
    return at;
}

enum { GAP = 0xabcd };

static uint16_t half(const struct Group *g, int from, int to, int64_t i) {
    return (uint16_t)(1000 * (g->first + from * g->stride) + 100 * to + i % 97);
}

static void check_exchange(const struct Group *g, int64_t unit) {
    struct Comm *comm = g->comm;
    struct CommPart send_parts[MAX_RANKS], recv_parts[MAX_RANKS];
    int64_t n_send = lay_out(send_parts, comm, true, unit);
    int64_t n_recv = lay_out(recv_parts, comm, false, unit), expected = comm->sent_bytes;
    struct Buffer send = buffer_make(g, n_send / 2 + 1), recv = buffer_make(g, n_recv / 2 + 1);
    uint16_t *out = (uint16_t *)send.host, *in = (uint16_t *)recv.host;
    for (int64_t i = 0; i < n_recv; i++) in[i] = GAP;
    for (int r = 0; r < comm->n_ranks; r++) {
        for (int64_t i = 0; i < send_parts[r].n_bytes / 2; i++)
            out[send_parts[r].at / 2 + i] = half(g, comm->rank, r, i);
        if (r != comm->rank) expected += send_parts[r].n_bytes;
    }
    buffer_upload(&send);
    buffer_upload(&recv);
    comm->wait(comm, comm->exchange_start(comm, recv.device, recv_parts, send.device, send_parts));
    buffer_download(&recv);
    for (int r = 0; r < comm->n_ranks; r++) {
        int64_t at = recv_parts[r].at / 2, n = recv_parts[r].n_bytes / 2;
        for (int64_t i = 0; i < n; i++) assert_int_equal(in[at + i], half(g, r, comm->rank, i));
        assert_int_equal(in[at + n], GAP);
    }
    assert_int_equal(comm->sent_bytes, expected);
    buffer_free(&send);
    buffer_free(&recv);
}

static void check_exchanges(const struct Group *g) {
    static const int64_t units[] = {0, 1, 33, 5000};
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) check_exchange(g, units[i]);
}

/* ---- several under way ---- */

/* All kinds at once, one of them twice, waited for from the middle. */
static void check_tickets(const struct Group *g) {
    enum { N = 3001 };
    struct Comm *comm = g->comm;
    struct Buffer a = buffer_of_values(g, N, 1), b = buffer_of_values(g, comm->n_ranks * N, 2);
    struct Buffer c = buffer_of_values(g, N, 3), d = buffer_make(g, comm->n_ranks * N);
    CommTicket first = comm->last_ticket + 1;
    assert_int_equal(comm->sum_start(comm, a.device, N), first);
    assert_int_equal(comm->scatter_sum_start(comm, b.device + comm->rank * N, b.device, N),
                     first + 1);
    assert_int_equal(comm->gather_start(comm, d.device, c.device, N * 4), first + 2);
    comm->wait(comm, first + 1);
    comm->wait(comm, first); /* has been */
    comm->wait(comm, 0);
    comm->wait(comm, first + 2);
    buffer_download(&d);
    for (int r = 0; r < comm->n_ranks; r++)
        for (int64_t i = 0; i < N; i++) assert_true(d.host[r * N + i] == value(g, r, i, 3));
    buffer_free(&d);
    check_sum(g, &a, 1);
    assert_int_equal(comm->sum_start(comm, b.device + comm->rank * N, N), first + 3);
    comm->finish(comm);
    buffer_download(&b);
    for (int64_t i = 0; i < N; i++) {
        float sum = 0.0f;
        for (int r = 0; r < comm->n_ranks; r++) sum += sum_of_values(g, r * N + i, 2);
        assert_true(b.host[comm->rank * N + i] == sum);
    }
    buffer_free(&a), buffer_free(&b), buffer_free(&c);
}

/* More than have a place of their own; the first is waited for when all have begun. */
static void check_many_tickets(const struct Group *g) {
    enum { N = COMM_TICKETS + 40 };
    struct Comm *comm = g->comm;
    struct Buffer b = buffer_of_values(g, N, 4);
    CommTicket first = comm->last_ticket + 1;
    for (int i = 0; i < N; i++) comm->sum_start(comm, b.device + i, 1);
    comm->wait(comm, first);
    buffer_download(&b);
    assert_true(b.host[0] == sum_of_values(g, 0, 4));
    comm->wait(comm, first + N / 2);
    comm->finish(comm);
    check_sum(g, &b, 4);
    buffer_free(&b);
}

/* ---- bits, and the host ---- */

/* Sums that round have the same bits on every rank and every time. */
static void check_bits(const struct Group *g) {
    enum { N = 9973 };
    struct Comm *comm = g->comm;
    struct Buffer sum[2] = {buffer_make(g, N), buffer_make(g, N)};
    float *root = xcalloc(N * sizeof *root);
    for (int k = 0; k < 2; k++) {
        for (int i = 0; i < N; i++)
            sum[k].host[i] = sinf((float)(i + 1) * (float)(g->first + comm->rank * g->stride + 1));
        buffer_upload(&sum[k]);
        comm->sum_start(comm, sum[k].device, N);
    }
    comm->finish(comm);
    for (int k = 0; k < 2; k++) buffer_download(&sum[k]);
    memcpy(root, sum[0].host, N * sizeof *root);
    comm->broadcast(comm, root, N * sizeof *root, comm->n_ranks - 1);
    assert_memory_equal(root, sum[0].host, N * sizeof *root);
    assert_memory_equal(root, sum[1].host, N * sizeof *root);
    buffer_free(&sum[0]);
    buffer_free(&sum[1]);
    free(root);
}

static void check_host(const struct Group *g) {
    enum { N = 501 };
    struct Comm *comm = g->comm;
    double host[N];
    for (int i = 0; i < N; i++) host[i] = (double)value(g, comm->rank, i, 5);
    comm->sum_f64(comm, host, N);
    for (int i = 0; i < N; i++) assert_true(host[i] == (double)sum_of_values(g, i, 5));
    for (int root = 0; root < comm->n_ranks; root++) {
        int said[2] = {comm->rank, g->first};
        comm->broadcast(comm, said, sizeof said, root);
        assert_int_equal(said[0], root);
        assert_int_equal(said[1], g->first);
    }
}

static void check_all(const struct Group *g) {
    check_sums(g);
    check_shares(g);
    check_exchanges(g);
    check_tickets(g);
    check_many_tickets(g);
    check_bits(g);
    check_host(g);
}

static void test_world(void **state) {
    check_all(*state);
}

/* ---- groups ---- */

static struct Group split(const struct Group *g, int n_ranks, int stride) {
    struct Group part = {g->comm->split(g->comm, n_ranks, stride), g->be, 0, 0};
    int rank = g->comm->rank, run = rank / (n_ranks * stride) * n_ranks * stride;
    part.first = g->first + (run + rank % stride) * g->stride;
    part.stride = g->stride * stride;
    assert_int_equal(part.comm->n_ranks, n_ranks);
    assert_int_equal(part.comm->rank, (rank - run) / stride);
    assert_true(part.comm->sent_bytes == 0 && part.comm->last_ticket == 0);
    return part;
}

/* All even ways to split, and those that the groups then have. */
static void check_splits(const struct Group *g, int depth) {
    int n = g->comm->n_ranks;
    for (int n_ranks = 1; n_ranks <= n; n_ranks++)
        for (int stride = 1; n_ranks * stride <= n; stride++) {
            if (n % (n_ranks * stride)) continue;
            struct Group part = split(g, n_ranks, stride);
            check_all(&part);
            if (depth > 1) check_splits(&part, depth - 1);
            part.comm->destroy(part.comm);
        }
}

static void test_splits(void **state) {
    check_splits(*state, 2);
}

/* Operations of all ranks, rows and columns of a grid are under way together. */
static void test_groups_beside_the_world(void **state) {
    enum { N = 2003 };
    const struct Group *world = *state;
    int rows = world->comm->n_ranks % 2 ? 1 : 2;
    struct Group groups[] = {*world, split(world, rows, 1),
                             split(world, world->comm->n_ranks / rows, rows)};
    struct Buffer buffers[3];
    CommTicket tickets[3];
    for (int i = 0; i < 3; i++) {
        buffers[i] = buffer_of_values(&groups[i], N, i);
        tickets[i] = groups[i].comm->sum_start(groups[i].comm, buffers[i].device, N);
    }
    for (int i = 2; i >= 0; i--) {
        groups[i].comm->wait(groups[i].comm, tickets[i]);
        check_sum(&groups[i], &buffers[i], i);
        groups[i].comm->finish(groups[i].comm);
        buffer_free(&buffers[i]);
        if (i) groups[i].comm->destroy(groups[i].comm);
    }
}

int main(int argc, char **argv) {
    bool cuda = argc > 1 && strcmp(argv[1], "cuda") == 0;
    struct BackendChoice choice = {.kind = cuda ? BACKEND_CUDA : BACKEND_CPU,
                                   .precision = DTYPE_F32};
    struct Error err = {0};
    struct Backend *be;
    struct Comm *host = comm_create(&err);
    if (!host || !backend_open(choice, host->local_rank, &be, &err)) return error_report(&err);
    struct Comm *comm = comm_for_backend(host, be);
    struct Group world = {comm, be, 0, 1};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(test_world, &world),
        cmocka_unit_test_prestate(test_splits, &world),
        cmocka_unit_test_prestate(test_groups_beside_the_world, &world),
    };
    setenv("CMOCKA_TEST_ABORT", "1",
           1); /* a rank that fails alone would leave the others waiting */
    int n_failed = cmocka_run_group_tests_name(comm->name, tests, NULL, NULL);
    if (comm != host) comm->destroy(comm);
    be->destroy(be);
    host->destroy(host);
    return n_failed;
}
