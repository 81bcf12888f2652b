/* Forks a process for each rank, collects what it writes to stderr, and waits for all. */
#include "process_ranks.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "../data/scratch.h"
#include "train/phase_timer.h"
#include "train/sockets.h"

static char *errors_path(const struct RankGroup *group, int rank) {
    char name[32];
    snprintf(name, sizeof name, "errors-%d", rank);
    return scratch_path(group->folder, name);
}

static void set_number(const char *name, int number) {
    char text[16];
    snprintf(text, sizeof text, "%d", number);
    setenv(name, text, 1);
}

_Noreturn static void be_rank(const struct RankGroup *group, int rank, const char *place,
                              RankBody body, void *context) {
    int errors = open(errors_path(group, rank), O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (errors < 0 || dup2(errors, STDERR_FILENO) < 0) _exit(99);
    setenv("TMD_RENDEZVOUS", place, 1);
    set_number("TMD_RANK", rank);
    set_number("TMD_WORLD_SIZE", group->n);
    unsetenv("TMD_LOCAL_RANK");
    _exit(body(rank, context));
}

void ranks_start(struct RankGroup *group, int n, const char *place, char *folder, RankBody body,
                 void *context) {
    assert_in_range(n, 1, PROCESS_RANKS);
    *group = (struct RankGroup){.n = n, .begin = wall_seconds(), .folder = folder};
    fflush(NULL);
    for (int r = 0; r < n; r++) {
        pid_t pid = fork();
        if (pid == 0) be_rank(group, r, place, body, context);
        assert_true(pid > 0);
        group->ranks[r].pid = pid;
    }
}

static void read_errors(struct RankGroup *group, int rank) {
    size_t n_bytes;
    char *path = errors_path(group, rank), *to = group->ranks[rank].errors;
    unsigned char *bytes = scratch_read(path, &n_bytes);
    if (n_bytes >= sizeof group->ranks[rank].errors) n_bytes = sizeof group->ranks[rank].errors - 1;
    memcpy(to, bytes, n_bytes);
    to[n_bytes] = '\0';
    free(bytes);
    free(path);
}

bool ranks_ended(struct RankGroup *group, int rank) {
    struct RankProcess *process = &group->ranks[rank];
    int status;
    if (!process->pid) return true;
    if (waitpid(process->pid, &status, WNOHANG) != process->pid) return false;
    process->pid = 0;
    process->exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
    process->seconds = wall_seconds() - group->begin;
    read_errors(group, rank);
    return true;
}

void ranks_await(struct RankGroup *group, double seconds) {
    int n_ended = 0, n_late = 0;
    double until = wall_seconds() + seconds;
    while (n_ended < group->n && wall_seconds() < until) {
        n_ended = 0;
        for (int r = 0; r < group->n; r++) n_ended += ranks_ended(group, r);
        usleep(5000);
    }
    for (int r = 0; r < group->n; r++) {
        if (!group->ranks[r].pid) continue;
        n_late++;
        kill(group->ranks[r].pid, SIGKILL);
        waitpid(group->ranks[r].pid, NULL, 0);
    }
    assert_int_equal(n_late, 0);
}

void ranks_run(int n, const char *place, char *folder, RankBody body, void *context) {
    struct RankGroup *group = malloc(sizeof *group);
    assert_non_null(group);
    ranks_start(group, n, place, folder, body, context);
    ranks_await(group, 60.0);
    for (int r = 0; r < n; r++) {
        if (group->ranks[r].exit_code) print_error("rank %d: %s\n", r, group->ranks[r].errors);
        assert_int_equal(group->ranks[r].exit_code, 0);
    }
    free(group);
}

void ranks_place_tcp(char place[64]) {
    struct Error err;
    char address[SOCKET_ADDRESS_BYTES];
    int fd = socket_listen("0", &err);
    assert_true(fd >= 0);
    socket_address(fd, address);
    close(fd);
    snprintf(place, 64, "tcp://127.0.0.1:%d", atoi(address));
}
