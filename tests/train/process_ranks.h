/* Ranks as processes of their own that meet by TCP, for tests of what they do to each other. */
#ifndef TMD_TESTS_PROCESS_RANKS_H
#define TMD_TESTS_PROCESS_RANKS_H

#include <stdbool.h>
#include <sys/types.h>

enum { PROCESS_RANKS = 8 }; /* at most */

struct RankProcess {
    pid_t pid;
    int exit_code;      /* once it has ended; -1: by a signal */
    double seconds;     /* from the start of all to its end, about */
    char errors[65536]; /* what it wrote to stderr */
};

/* What a rank does, in a process whose environment says who it is; the value is its exit code. */
typedef int (*RankBody)(int rank, void *context);

struct RankGroup {
    int n;
    double begin;
    char *folder;
    struct RankProcess ranks[PROCESS_RANKS];
};

/* Starts ranks 0 .. n - 1 that meet at `place` ($TMD_RENDEZVOUS); `folder` is for their stderr. */
void ranks_start(struct RankGroup *group, int n, const char *place, char *folder, RankBody body,
                 void *context);
/* Whether the rank has ended; then its exit code and errors are there. */
bool ranks_ended(struct RankGroup *group, int rank);
/* Waits until all have ended.  The test fails, and they are killed, if that takes too long. */
void ranks_await(struct RankGroup *group, double seconds);
/* Both; every rank must exit with 0. */
void ranks_run(int n, const char *place, char *folder, RankBody body, void *context);

/* "tcp://127.0.0.1:PORT" with a port that is free now. */
void ranks_place_tcp(char place[64]);

#endif
