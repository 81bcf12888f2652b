/* What ranks find about themselves arrives at all of them; it is told in full, and what differs
 * from rank to rank is warned of, by rank. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>
#include <jansson.h>
#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "../data/scratch.h"
#include "thread_ranks.h"
#include "train/clock_offsets.h"
#include "train/comm_gather.h"
#include "train/environment.h"

/* ---- asking */

static void gather(struct Comm *comm, void *context) {
    int own[2] = {10 + comm->rank, -comm->rank}, all[2 * THREAD_RANKS_MAX] = {0};
    atomic_int *n_right = context;
    comm_gather_host(comm, all, own, sizeof own);
    for (int r = 0; r < comm->n_ranks; r++)
        if (all[2 * r] == 10 + r && all[2 * r + 1] == -r) (*n_right)++;
}

static void test_gather(void **state) {
    (void)state;
    for (int n = 1; n <= 5; n++) {
        atomic_int n_right = 0;
        thread_ranks_run(n, gather, &n_right);
        assert_int_equal(n_right, n * n);
    }
}

/* A clock that ticks when it is read, so that the measurement can be foretold: skewed by rank, and
 * in the first exchange rank 1 takes its time to answer. */
static const double skews[4] = {0.0, 250.0, -4096.0, 0.5};
static atomic_long ticks;
static _Thread_local double own_skew;
static _Thread_local bool answers_late;

static double ticking_clock(void) {
    if (answers_late) atomic_fetch_add(&ticks, 1000);
    answers_late = false;
    return (double)(atomic_fetch_add(&ticks, 1) + 1) + own_skew;
}

struct Measured {
    double ahead[4], uncertainty;
};

static void measure(struct Comm *comm, void *context) {
    struct Measured own;
    own_skew = skews[comm->rank];
    answers_late = comm->rank == 1;
    clock_offsets_measure(comm, ticking_clock, own.ahead, &own.uncertainty);
    if (comm->rank == 0) *(struct Measured *)context = own;
}

static void test_clocks(void **state) {
    (void)state;
    struct Measured measured;
    ticks = 1000000;
    thread_ranks_run(4, measure, &measured);
    assert_true(measured.uncertainty >= 2.5); /* four ranks read between rank 0's two readings */
    assert_true(measured.uncertainty < 100.0);
    assert_true(measured.ahead[0] == 0.0);
    for (int r = 1; r < 4; r++)
        assert_true(fabs(measured.ahead[r] - skews[r]) <= measured.uncertainty);
}

static void describe_by_rank(const struct Backend *be, char *text, size_t n_bytes) {
    snprintf(text, n_bytes, "device of rank %d", *(const int *)be->state);
}

static void survey(struct Comm *comm, void *context) {
    atomic_int *n_right = context;
    struct Environment env;
    struct Backend be = {.state = &comm->rank, .describe = describe_by_rank};
    environment_survey(&env, comm, comm, &be);
    for (int r = 0; r < comm->n_ranks; r++) {
        char device[ENVIRONMENT_TEXT];
        const struct RankFacts *facts = &env.ranks[r];
        snprintf(device, sizeof device, "device of rank %d", r);
        if (strcmp(facts->device, device) == 0 && *facts->host && facts->n_threads >= 1 &&
            strncmp(facts->software, "tmd ", 4) == 0 &&
            strstr(facts->software, ", threads, HDF5 1.") && strstr(facts->software, ", zstd 1."))
            (*n_right)++;
    }
    environment_free(&env);
}

static void test_survey(void **state) {
    (void)state;
    atomic_int n_right = 0;
    thread_ranks_run(3, survey, &n_right);
    assert_int_equal(n_right, 9);
}

/* ---- telling */

enum { N_RANKS = 6 };

/* Two hosts of three ranks, which have four processors each, a thread per rank, and nothing to say
 * against them. */
struct Made {
    struct RankFacts ranks[N_RANKS];
    double ahead[N_RANKS];
    struct Environment env;
};

static struct Made *make_environment(void) {
    struct Made *made = xcalloc(sizeof *made);
    for (int r = 0; r < N_RANKS; r++) {
        struct RankFacts *facts = &made->ranks[r];
        strcpy(facts->host, r < 3 ? "north" : "south");
        strcpy(facts->device, "a device");
        strcpy(facts->software, "the software");
        facts->n_threads = 1;
        facts->processors[0] = 0xf;
    }
    made->env = (struct Environment){.n_ranks = N_RANKS,
                                     .ranks = made->ranks,
                                     .clock_ahead = made->ahead,
                                     .clock_uncertainty = 0.001};
    made->env.room = (struct CheckpointRoom){.folder = "runs/x/checkpoints",
                                             .checkpoint_bytes = 25000000000,
                                             .n_to_fit = 4,
                                             .free_bytes = 100000000000};
    return made;
}

struct Heard {
    int n;
    char sentences[8][1024];
};

static void hear(void *context, const char *sentence) {
    struct Heard *heard = context;
    assert_true(heard->n < 8);
    snprintf(heard->sentences[heard->n++], sizeof heard->sentences[0], "%s", sentence);
}

/* Warnings of `made`, which is freed, must be the n given. */
static void expect_warnings(struct Made *made, int n, ...) {
    struct Heard *heard = xcalloc(sizeof *heard);
    environment_warn(&made->env, hear, heard);
    free(made);
    va_list expected;
    va_start(expected, n);
    for (int i = 0; i < n && i < heard->n; i++)
        assert_string_equal(heard->sentences[i], va_arg(expected, const char *));
    va_end(expected);
    assert_int_equal(heard->n, n);
    free(heard);
}

static void test_no_warnings(void **state) {
    (void)state;
    expect_warnings(make_environment(), 0);
}

static void test_different_devices(void **state) {
    (void)state;
    struct Made *made = make_environment();
    strcpy(made->ranks[1].device, "an old device");
    strcpy(made->ranks[4].device, "an old device");
    strcpy(made->ranks[5].device, "an old device");
    strcpy(made->ranks[2].device, "a third device");
    strcpy(made->ranks[3].software, "other software");
    expect_warnings(
        made, 3,
        "the device of ranks 1, 4-5: expected that of rank 0, 'a device', got 'an old device'",
        "the device of rank 2: expected that of rank 0, 'a device', got 'a third device'",
        "the software of rank 3: expected that of rank 0, 'the software', got 'other "
        "software'");
}

/* South's ranks share two processors for four threads; north's four threads have a processor each.
 */
static void test_crowded_host(void **state) {
    (void)state;
    struct Made *made = make_environment();
    made->ranks[0].n_threads = made->ranks[3].n_threads = 2;
    made->ranks[3].processors[0] = made->ranks[4].processors[0] = 1;
    made->ranks[5].processors[0] = 2;
    expect_warnings(made, 1,
                    "south, ranks 3-5: 4 threads on the 2 processors that they may use; fewer "
                    "(OMP_NUM_THREADS), or another binding of ranks, would be faster");
    made = make_environment(); /* processors that are not known are not judged */
    for (int r = 0; r < N_RANKS; r++) made->ranks[r].processors[0] = 0;
    expect_warnings(made, 0);
}

static void test_skewed_clocks(void **state) {
    (void)state;
    struct Made *made = make_environment();
    made->ahead[1] = 1.0005; /* perhaps less than a second, as well as it is known */
    made->ahead[2] = -1.5;
    made->ahead[4] = 61.0;
    expect_warnings(made, 2, "the clock of rank 2 (north) is 1.5 s behind that of rank 0 (north)",
                    "the clock of rank 4 (south) is 61.0 s ahead of that of rank 0 (north)");
}

static void test_little_room(void **state) {
    (void)state;
    struct Error err = {0};
    struct Made *made = make_environment();
    made->env.room.free_bytes--;
    assert_true(checkpoint_room_check(&made->env.room, &err));
    expect_warnings(
        made, 1,
        "runs/x/checkpoints: 4 checkpoints need 100.0 GB before the first is removed, and "
        "100.0 GB are left on the disk; a smaller checkpoint.keep_last needs less");

    made = make_environment();
    made->env.room.free_bytes = 25000000000;
    assert_true(checkpoint_room_check(&made->env.room, &err));
    made->env.room.free_bytes = 24999000000;
    made->env.room.checkpoint_bytes = 25000000000;
    assert_false(checkpoint_room_check(&made->env.room, &err));
    assert_int_equal(err.exit_code, EXIT_USER);
    assert_string_equal(err.text,
                        "runs/x/checkpoints: expected room for a checkpoint, 25.0 GB, got "
                        "25.0 GB left on its disk");
    made->env.room.free_bytes = -1; /* the disk does not tell */
    assert_true(checkpoint_room_check(&made->env.room, &err));
    expect_warnings(made, 0);
}

static void test_printed(void **state) {
    (void)state;
    struct Made *made = make_environment();
    char *text;
    size_t n_bytes;
    made->ahead[5] = -2.0;
    strcpy(made->ranks[0].device, "a new device");
    for (int r = 1; r < N_RANKS; r++) made->ranks[r].n_threads = 0; /* so that nothing is crowded */
    FILE *out = open_memstream(&text, &n_bytes);
    environment_print(&made->env, out);
    fclose(out);
    assert_string_equal(
        text,
        "environment: 6 ranks on 2 hosts\n"
        "  software   the software\n"
        "  hosts      north (ranks 0-2)\n"
        "             south (ranks 3-5)\n"
        "  devices    a new device (rank 0)\n"
        "             a device (ranks 1-5)\n"
        "  threads    1 per rank, processors that it may use: 4 (rank 0)\n"
        "             0 per rank, processors that it may use: 4 (ranks 1-5)\n"
        "  clocks     within 2e+03 ms of rank 0's, measured to 1 ms\n"
        "  disk       100.0 GB free for checkpoints of about 25.0 GB each, of which 4 must fit\n"
        "  warning:   the device of ranks 1-5: expected that of rank 0, 'a new device', got 'a "
        "device'\n"
        "  warning:   the clock of rank 5 (south) is 2.0 s behind that of rank 0 (north)\n");
    free(text);
    free(made);
}

/* Hosts without number are cut in the block, not in the file. */
static void test_many_hosts(void **state) {
    enum { N_HOSTS = 300 };
    struct Environment env = {.n_ranks = N_HOSTS,
                              .ranks = xcalloc(N_HOSTS * sizeof *env.ranks),
                              .clock_ahead = xcalloc(N_HOSTS * sizeof *env.clock_ahead)};
    for (int r = 0; r < N_HOSTS; r++) {
        snprintf(env.ranks[r].host, ENVIRONMENT_TEXT, "host-%d", r);
        strcpy(env.ranks[r].device, r % 2 ? "odd" : "even");
    }
    char *text, *path = scratch_path(*state, "environment.json");
    size_t n_bytes;
    FILE *out = open_memstream(&text, &n_bytes);
    environment_print(&env, out);
    fclose(out);
    assert_non_null(strstr(text, "             host-15 (rank 15)\n             and 284 more\n"));
    assert_non_null(strstr(text, "  devices    even (ranks 0, 2, 4, 6, "));
    assert_true(n_bytes < 3000);
    free(text);

    struct Error err = {0};
    strcpy(env.ranks[7].device, "\xff");
    if (!environment_save(&env, path, &err)) fail_msg("%s", err.text);
    json_t *root = json_load_file(path, 0, NULL), *ranks = json_object_get(root, "ranks");
    assert_int_equal(json_array_size(ranks), N_HOSTS);
    json_t *last = json_array_get(ranks, N_HOSTS - 1);
    assert_int_equal(json_integer_value(json_object_get(last, "rank")), N_HOSTS - 1);
    assert_string_equal(json_string_value(json_object_get(last, "host")), "host-299");
    json_t *broken = json_object_get(json_array_get(ranks, 7), "device");
    assert_string_equal(json_string_value(broken), "(not UTF-8)");
    assert_int_equal(json_array_size(json_object_get(root, "warnings")),
                     2); /* devices unlike rank 0's */
    json_decref(root);
    free(path);
    environment_free(&env);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gather),
        cmocka_unit_test(test_clocks),
        cmocka_unit_test(test_survey),
        cmocka_unit_test(test_no_warnings),
        cmocka_unit_test(test_different_devices),
        cmocka_unit_test(test_crowded_host),
        cmocka_unit_test(test_skewed_clocks),
        cmocka_unit_test(test_little_room),
        cmocka_unit_test(test_printed),
        WITH_FOLDER(test_many_hosts),
    };
    return cmocka_run_group_tests_name("environment", tests, NULL, NULL);
}
