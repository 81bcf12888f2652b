/* What the watchdog says of ranks that hang, are stopped or are gone, and of those that are only
 * slow.  All cases run beside each other, for most of their time is spent waiting. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "../data/scratch.h"
#include "process_ranks.h"
#include "train/comm_tcp.h"
#include "train/watchdog.h"

enum { N_RANKS = 3, LIMIT = 2, GONE = 7 };

static void doze(double seconds) {
    for (double until = wall_seconds() + seconds; wall_seconds() < until;) usleep(10000);
}

static void hang(void) {
    for (;;) pause();
}

/* ---- what a rank does between data and the end ---- */

/* Rank 1 computes for ever, the others wait for it. */
static void rank_1_hangs(struct Watchdog *dog, int rank) {
    watchdog_enter(dog, PHASE_COMPUTE);
    if (rank == 1) hang();
    watchdog_enter(dog, PHASE_REDUCE);
    hang();
}

static void rank_0_hangs(struct Watchdog *dog, int rank) {
    watchdog_enter(dog, PHASE_UPDATE);
    if (rank == 0) hang();
    watchdog_enter(dog, PHASE_REDUCE);
    hang();
}

static void all_hang(struct Watchdog *dog, int rank) {
    (void)rank;
    watchdog_enter(dog, PHASE_REDUCE);
    hang();
}

static void stop_one(struct Watchdog *dog, int rank, int who) {
    watchdog_enter(dog, PHASE_UPDATE);
    doze(0.5); /* for the others to hear of it */
    if (rank == who) raise(SIGSTOP);
    watchdog_enter(dog, PHASE_REDUCE);
    hang();
}

static void rank_1_stops(struct Watchdog *dog, int rank) {
    stop_one(dog, rank, 1);
}

static void rank_0_stops(struct Watchdog *dog, int rank) {
    stop_one(dog, rank, 0);
}

static void rank_1_goes(struct Watchdog *dog, int rank) {
    watchdog_enter(dog, PHASE_PREVIEW);
    doze(0.5);
    if (rank == 1) _exit(GONE);
    hang();
}

static void rank_0_goes(struct Watchdog *dog, int rank) {
    watchdog_enter(dog, PHASE_PREVIEW);
    doze(0.5);
    if (rank == 0) _exit(GONE);
    hang();
}

/* Rank 1 works on for three limits, the others wait. */
static void slow(struct Watchdog *dog, int rank) {
    watchdog_enter(dog, PHASE_COMPUTE);
    for (int i = 0; rank == 1 && i < 12; i++) {
        doze(LIMIT / 4.0);
        watchdog_alive(dog);
    }
    watchdog_enter(dog, PHASE_REDUCE);
    doze(rank == 1 ? 0.0 : 3.0 * LIMIT);
}

/* Rank 0 saves for two limits. */
static void slow_save(struct Watchdog *dog, int rank) {
    watchdog_enter(dog, PHASE_SAVE);
    doze(rank ? 0.0 : 2.0 * LIMIT);
    if (rank) watchdog_enter(dog, PHASE_DATA);
    doze(rank ? 2.0 * LIMIT : 0.0);
}

/* Rank 1 is done long before the others, longer than a rank that is gone would be waited for. */
static void leaves_early(struct Watchdog *dog, int rank) {
    watchdog_enter(dog, PHASE_CLOSE);
    doze(rank == 1 ? 0.0 : 7.0);
}

/* ---- the cases ---- */

struct Case {
    const char *name;
    void (*body)(struct Watchdog *dog, int rank);
    int exit_codes[N_RANKS], speaker; /* speaker -1: nobody says anything */
    const char *words[3];             /* of what it says */
};

static const struct Case cases[] = {
    {"rank 1 hangs",
     rank_1_hangs,
     {EXIT_STUCK, EXIT_STUCK, EXIT_STUCK},
     0,
     {"watchdog: rank 1 (", "no work done in phase 'compute'", "the other ranks wait"}},
    {"rank 0 hangs",
     rank_0_hangs,
     {EXIT_STUCK, EXIT_STUCK, EXIT_STUCK},
     0,
     {"watchdog: rank 0 (", "no work done in phase 'update'", "the other ranks wait"}},
    {"all hang",
     all_hang,
     {EXIT_STUCK, EXIT_STUCK, EXIT_STUCK},
     0,
     {"watchdog: rank 0 (", ") and 2 more: no work done", "'reduce'"}},
    {"rank 1 stops",
     rank_1_stops,
     {EXIT_STUCK, EXIT_STUCK, EXIT_STUCK},
     0,
     {"watchdog: rank 1 (", "has not answered for ", "it was in phase 'update'"}},
    {"rank 0 stops",
     rank_0_stops,
     {EXIT_STUCK, EXIT_STUCK, EXIT_STUCK},
     1,
     {"watchdog: rank 0 (", "has not answered for ", "it was in phase 'update'"}},
    {"rank 1 goes",
     rank_1_goes,
     {EXIT_FAILED, GONE, EXIT_FAILED},
     0,
     {"watchdog: rank 1 (", "is gone", "it was in phase 'preview'"}},
    {"rank 0 goes",
     rank_0_goes,
     {GONE, EXIT_FAILED, EXIT_FAILED},
     1,
     {"watchdog: rank 0 (", "is gone", "it was in phase 'preview'"}},
    {"slow", slow, {0, 0, 0}, -1, {NULL}},
    {"slow save", slow_save, {0, 0, 0}, -1, {NULL}},
    {"leaves early", leaves_early, {0, 0, 0}, -1, {NULL}},
    {"all stopped for a while", slow, {0, 0, 0}, -1, {NULL}},
};
enum { N_CASES = sizeof cases / sizeof *cases };

static int rank_body(int rank, void *context) {
    const struct Case *c = context;
    struct Watchdog *dog;
    struct Error err;
    struct Comm *comm = comm_tcp_create(&err);
    if (!comm || !watchdog_start(comm, LIMIT, &dog, &err)) return error_report(&err);
    watchdog_enter(dog, PHASE_DATA);
    c->body(dog, rank);
    watchdog_stop(dog);
    comm->destroy(comm);
    return 0;
}

static void send_to_all(const struct RankGroup *group, int signal_number) {
    for (int r = 0; r < group->n; r++)
        if (group->ranks[r].pid) kill(group->ranks[r].pid, signal_number);
}

/* A stopped rank learns of the end when it is continued. */
static void await_case(struct RankGroup *group) {
    for (double until = wall_seconds() + 30.0; wall_seconds() < until; usleep(10000)) {
        int n_left = 0;
        for (int r = 0; r < group->n; r++) n_left += !ranks_ended(group, r);
        if (n_left <= 1) break;
    }
    send_to_all(group, SIGCONT);
    ranks_await(group, 20.0);
}

static void check_case(const struct Case *c, const struct RankGroup *group) {
    for (int r = 0; r < N_RANKS; r++) {
        const struct RankProcess *rank = &group->ranks[r];
        bool silent = r != c->speaker && !(c->speaker > 0 && r > c->speaker);
        if (rank->exit_code != c->exit_codes[r] || (silent && *rank->errors))
            fail_msg("%s: rank %d ended with %d: %s", c->name, r, rank->exit_code, rank->errors);
        for (int i = 0; r == c->speaker && i < 3; i++)
            if (!strstr(rank->errors, c->words[i]))
                fail_msg("%s: '%s' is not in: %s", c->name, c->words[i], rank->errors);
    }
    if (c->exit_codes[2] == EXIT_STUCK)
        assert_true(group->ranks[2].seconds > LIMIT && group->ranks[2].seconds < LIMIT + 20.0);
}

static void test_cases(void **state) {
    struct RankGroup *groups = xcalloc(N_CASES * sizeof *groups);
    for (int i = 0; i < N_CASES; i++) {
        char place[64], name[32], *folder;
        snprintf(name, sizeof name, "case-%d", i);
        folder = scratch_path(*state, name);
        assert_int_equal(mkdir(folder, 0777), 0);
        ranks_place_tcp(place);
        ranks_start(&groups[i], N_RANKS, place, folder, rank_body, (void *)(uintptr_t)&cases[i]);
    }
    doze(0.5);
    send_to_all(&groups[N_CASES - 1], SIGSTOP);
    doze(2.0 * LIMIT);
    send_to_all(&groups[N_CASES - 1], SIGCONT);
    for (int i = 0; i < N_CASES; i++) await_case(&groups[i]);
    for (int i = 0; i < N_CASES; i++) {
        check_case(&cases[i], &groups[i]);
        free(groups[i].folder);
    }
    free(groups);
}

/* One rank alone has nobody else to name. */
static int alone(int rank, void *context) {
    (void)rank, (void)context;
    struct Watchdog *dog;
    struct Error err;
    if (!watchdog_start(comm_self_create(NULL), 1.0, &dog, &err)) return error_report(&err);
    watchdog_enter(dog, PHASE_DATA);
    hang();
    return 0;
}

static void test_alone(void **state) {
    struct RankGroup *group = xmalloc(sizeof *group);
    ranks_start(group, 1, "", *state, alone, NULL);
    ranks_await(group, 20.0);
    assert_int_equal(group->ranks[0].exit_code, EXIT_STUCK);
    assert_non_null(strstr(group->ranks[0].errors, "no work done in phase 'data'"));
    assert_null(strstr(group->ranks[0].errors, "other ranks"));
    free(group);
}

static void test_off(void **state) {
    (void)state;
    struct Watchdog *dog;
    struct Error err;
    assert_true(watchdog_start(NULL, 0.0, &dog, &err));
    assert_null(dog);
    watchdog_enter(dog, PHASE_DATA);
    watchdog_alive(dog);
    watchdog_stop(dog);
}

int main(void) {
    const struct CMUnitTest tests[] = {WITH_FOLDER(test_cases), WITH_FOLDER(test_alone),
                                       cmocka_unit_test(test_off)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
