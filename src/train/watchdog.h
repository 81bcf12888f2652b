/* A thread in every rank that ends a job which has come to a halt.
 *
 * The main thread says which phase it enters, and in long ones now and then that it still works.
 * The threads tell that to rank 0 about once a second, over connections of their own: they use
 * neither MPI nor NCCL, in which the main threads may hang.  When no rank has given a sign of work
 * for `limit` seconds, rank 0 names the rank that is behind, and its phase, on stderr, and all
 * ranks end at once with EXIT_STUCK.  A rank is behind if its process no longer answers, or if the
 * others have come further and wait for it.  The other ranks watch rank 0 in the same way.  A run
 * that is slow but moves, in any rank, is left alone; so is one whose processes were all stopped
 * for a while.
 *
 * Opening, saving, previews and the teacher's pairs may take four times as long, because they give
 * signs of work less often.
 *
 * If a process is gone, the others end with EXIT_FAILED after a few seconds, unless a launcher ends
 * them earlier. */
#ifndef TMD_WATCHDOG_H
#define TMD_WATCHDOG_H

#include "train/comm.h"
#include "train/phase_timer.h"

struct Watchdog;

/* Collective; limit in seconds.  0: no watchdog; *started is NULL, with which the other functions
 * do nothing.  Call from the main thread, which is then in PHASE_OPEN. */
bool watchdog_start(struct Comm *comm, double limit, struct Watchdog **started, struct Error *err);

/* The main thread enters a phase.  All ranks enter the same ones in the same order. */
void watchdog_enter(struct Watchdog *dog, enum Phase phase);
/* The main thread has done some work in its phase. */
void watchdog_alive(struct Watchdog *dog);

/* Tells the other ranks, which may go on, that this one leaves; frees. */
void watchdog_stop(struct Watchdog *dog);

#endif
