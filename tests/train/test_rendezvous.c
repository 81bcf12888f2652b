/* How ranks find each other: what the environment says, who does not come, and what else may be
 * found where a rank is looked for. */
#include <math.h>
#include <setjmp.h>
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
#include "train/rendezvous.h"

/* ---- the environment ---- */

static const char *const variables[] = {"TMD_RENDEZVOUS",
                                        "TMD_RENDEZVOUS_SECONDS",
                                        "TMD_RANK",
                                        "TMD_WORLD_SIZE",
                                        "TMD_LOCAL_RANK",
                                        "TMD_JOB",
                                        "RANK",
                                        "WORLD_SIZE",
                                        "LOCAL_RANK",
                                        "SLURM_PROCID",
                                        "SLURM_NTASKS",
                                        "SLURM_LOCALID",
                                        "SLURM_JOB_ID",
                                        "SLURM_STEP_ID",
                                        "OMPI_COMM_WORLD_RANK",
                                        "OMPI_COMM_WORLD_SIZE",
                                        "TORCHELASTIC_RUN_ID",
                                        "SLURM_RESTART_COUNT"};

/* `text`: NAME=VALUE, separated by blanks; nothing else of ours is set. */
static void set_environment(const char *text) {
    char *copy = xstrdup(text), *rest = NULL;
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++) unsetenv(variables[i]);
    for (char *word = strtok_r(copy, " ", &rest); word; word = strtok_r(NULL, " ", &rest)) {
        char *equals = strchr(word, '=');
        *equals = '\0';
        setenv(word, equals + 1, 1);
    }
    free(copy);
}

static void test_launchers(void **state) {
    (void)state;
    static const struct {
        const char *environment;
        int rank, n_ranks, local_rank;
        const char *job;
    } cases[] = {
        {"TMD_RANK=3 TMD_WORLD_SIZE=4", 3, 4, -1, ""},
        {"TMD_RANK=3 TMD_WORLD_SIZE=4 TMD_LOCAL_RANK=1 TMD_JOB=x SLURM_JOB_ID=9", 3, 4, 1, "x"},
        {"RANK=1 WORLD_SIZE=2 LOCAL_RANK=0 TORCHELASTIC_RUN_ID=abc", 1, 2, 0, "abc"},
        {"SLURM_PROCID=5 SLURM_NTASKS=8 SLURM_LOCALID=2 SLURM_JOB_ID=77 SLURM_RESTART_COUNT=1", 5,
         8, 2, "77.1"},
        /* mpirun within a job of Slurm, whose variables are about mpirun's own processes */
        {"SLURM_PROCID=0 SLURM_NTASKS=1 OMPI_COMM_WORLD_RANK=2 OMPI_COMM_WORLD_SIZE=3", 2, 3, -1,
         ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct Launch launch;
        struct Error err;
        set_environment(cases[i].environment);
        assert_false(launch_wanted());
        setenv("TMD_RENDEZVOUS", "file:///nowhere", 1);
        assert_true(launch_wanted());
        assert_true(launch_read(&launch, &err));
        assert_int_equal(launch.rank, cases[i].rank);
        assert_int_equal(launch.n_ranks, cases[i].n_ranks);
        assert_int_equal(launch.local_rank, cases[i].local_rank);
        assert_string_equal(launch.job, cases[i].job);
    }
}

static void test_mistakes(void **state) {
    (void)state;
    static const struct {
        const char *environment, *message;
    } cases[] = {
        {"TMD_RENDEZVOUS=file:///x", "neither $TMD_RANK"},
        {"TMD_RENDEZVOUS=file:///x TMD_RANK=0", "$TMD_WORLD_SIZE: expected a number from 1"},
        {"TMD_RENDEZVOUS=file:///x TMD_RANK=2 TMD_WORLD_SIZE=2", "from 0 to 1, got '2'"},
        {"TMD_RENDEZVOUS=file:///x TMD_RANK=one TMD_WORLD_SIZE=2", "$TMD_RANK: expected a number"},
        {"TMD_RENDEZVOUS=file:///x TMD_RANK=0.5 TMD_WORLD_SIZE=2", "whole number, got 0.5"},
        {"TMD_RENDEZVOUS=file:///x TMD_RANK=0 TMD_WORLD_SIZE=2 TMD_LOCAL_RANK=2",
         "$TMD_LOCAL_RANK"},
        {"TMD_RENDEZVOUS=file:///x TMD_RANK=0 TMD_WORLD_SIZE=2 TMD_RENDEZVOUS_SECONDS=soon",
         "$TMD_RENDEZVOUS_SECONDS"},
        {"TMD_RENDEZVOUS=udp://x:1 TMD_RANK=0 TMD_WORLD_SIZE=2", "got 'udp://x:1'"},
        {"TMD_RENDEZVOUS=tcp://x TMD_RANK=0 TMD_WORLD_SIZE=2", "got 'tcp://x'"},
        {"TMD_RENDEZVOUS=tcp://:5 TMD_RANK=0 TMD_WORLD_SIZE=2", "expected tcp://HOST:PORT"},
        {"TMD_RENDEZVOUS=tcp://x:70000 TMD_RANK=0 TMD_WORLD_SIZE=2", "expected tcp://HOST:PORT"},
        {"TMD_RENDEZVOUS=file:///no/such/folder/x TMD_RANK=0 TMD_WORLD_SIZE=2",
         "/no/such/folder/x"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct Launch launch;
        struct Star star;
        struct Error err = {0};
        set_environment(cases[i].environment);
        assert_false(launch_read(&launch, &err) && rendezvous(&launch, &star, &err));
        if (!strstr(err.text, cases[i].message)) print_error("%s\n", err.text);
        assert_non_null(strstr(err.text, cases[i].message));
        assert_int_equal(err.exit_code, EXIT_USER);
    }
    set_environment("");
}

/* ---- meeting ---- */

/* Meets the others and says a word to each end. */
static int meet(void) {
    struct Launch launch;
    struct Star star;
    struct Error err;
    if (!launch_read(&launch, &err) || !rendezvous(&launch, &star, &err)) return error_report(&err);
    bool ok = true;
    for (int r = 0; r < star.n_ranks; r++) {
        int said = star.rank, heard = -1, fd = star.peers[r].fd;
        if (fd < 0) continue;
        ok = ok && socket_send(fd, &said, sizeof said, INFINITY) &&
             socket_receive(fd, &heard, sizeof heard, INFINITY) && heard == r &&
             *star.peers[r].host;
    }
    star_close(&star);
    return ok ? EXIT_OK : EXIT_FAILED;
}

static void write_line(const char *path, const char *where) {
    char *line = xprintf("tmd-rendezvous %llx %s\n", 0xcbf29ce484222325ull, where); /* of no job */
    scratch_write(path, line, strlen(line));
    free(line);
}

/* Others come before rank 0, and find what earlier jobs have left. */
static int late_leader(int rank, void *context) {
    (void)context;
    if (rank == 0) usleep(300000);
    return meet();
}

static void test_stale_files(void **state) {
    char *path = scratch_path(*state, "meet"), *place = xprintf("file://%s", path);
    char dead[64];
    ranks_place_tcp(dead);
    const char *port = strrchr(dead, ':') + 1;
    char *nobody = xprintf("%s 127.0.0.1", port);
    for (int kind = 0; kind < 5; kind++) {
        if (kind == 1) write_line(path, nobody);
        if (kind == 2) write_line(path, "99999999 no.such.host.invalid");
        if (kind == 3) scratch_write(path, "nothing\0of the kind", 19);
        if (kind == 4) assert_int_equal(mkfifo(path, 0600), 0);
        ranks_run(3, place, *state, late_leader, NULL);
        assert_false(scratch_exists(path));
    }
    free(nobody);
    free(place);
    free(path);
}

/* Beside three ranks: one of another job, one that says something else, one that says nothing. */
static int among_strangers(int rank, void *context) {
    const char *port = context;
    setenv("TMD_WORLD_SIZE", "3", 1);
    if (rank && rank < 3) usleep(300000 * (useconds_t)rank);
    if (rank < 3) return meet();
    if (rank == 3) {
        setenv("TMD_RANK", "1", 1);
        setenv("TMD_JOB", "another", 1);
        setenv("TMD_RENDEZVOUS_SECONDS", "1", 1);
        return meet() == EXIT_USER ? 0 : 1;
    }
    char *address = xprintf("%s 127.0.0.1", port), word[200] = "GET / HTTP/1.1\r\n\r\n";
    bool end;
    int fd = -1;
    for (int try = 0; fd < 0 && try < 100; try++) {
        fd = socket_connect(address, 0, INFINITY, &end);
        usleep(10000);
    }
    if (rank == 4) socket_send(fd, word, sizeof word, INFINITY);
    return fd >= 0 && !socket_receive(fd, word, sizeof word, INFINITY) ? 0 : 1;
}

static void test_strangers(void **state) {
    char place[64];
    ranks_place_tcp(place);
    ranks_run(6, place, *state, among_strangers, strrchr(place, ':') + 1);
}

enum Mistake { MISSING, DOUBLE, MISCOUNTED };

static int mistaken(int rank, void *context) {
    enum Mistake mistake = *(enum Mistake *)context;
    setenv("TMD_RENDEZVOUS_SECONDS", "2", 1);
    if (mistake == MISSING && (rank == 1 || rank == 3)) return 0;
    if (mistake == DOUBLE && rank == 3) setenv("TMD_RANK", "1", 1);
    if (mistake == MISCOUNTED && rank == 3) setenv("TMD_WORLD_SIZE", "5", 1);
    return meet();
}

static void test_missing(void **state) {
    static const char *const messages[] = {
        [MISSING] = "2 of 4 ranks have not come to rank 0",
        [DOUBLE] = "say they are rank 1",
        [MISCOUNTED] = "says it is rank 3 of 5; rank 0 expects 4 ranks",
    };
    struct RankGroup *group = xmalloc(sizeof *group);
    for (enum Mistake mistake = MISSING; mistake <= MISCOUNTED; mistake++) {
        char place[64];
        ranks_place_tcp(place);
        ranks_start(group, 4, place, *state, mistaken, &mistake);
        ranks_await(group, 20.0);
        const char *errors = group->ranks[0].errors;
        assert_int_equal(group->ranks[0].exit_code, EXIT_USER);
        assert_non_null(strstr(errors, messages[mistake]));
        if (mistake == MISSING) assert_non_null(strstr(errors, ": 1, 3\n"));
        assert_int_equal(group->ranks[2].exit_code, EXIT_USER);
        assert_non_null(strstr(group->ranks[2].errors, "rank 2 "));
    }
    free(group);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_launchers), cmocka_unit_test(test_mistakes),
        WITH_FOLDER(test_stale_files),    WITH_FOLDER(test_strangers),
        WITH_FOLDER(test_missing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
