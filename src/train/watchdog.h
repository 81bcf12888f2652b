/* A thread in every rank that ends a job which has come to a halt.
 *
 * The main thread says which phase it enters, and in long ones that it is still at work.  The
 * threads tell that to rank 0 about once a second, over connections of their own: neither MPI nor
 * NCCL, in which the main threads may hang, has a part in it.  When no rank has given a sign of
 * work for `limit` seconds, rank 0 names on stderr the one that is behind - its process answers no
 * more, or the others have come further and wait for it - with its phase, and all ranks end at once
 * with EXIT_STUCK. The others watch rank 0 in the same way.  A run that is slow but moves, in
 * whichever rank, is left alone; so is one whose processes were all stopped for a while.
 *
 * Opening, saving, previews and the teacher's pairs may take four times as long: one sign of work
 * there stands for much of it.
 *
 * A process that is gone ends the others with EXIT_FAILED after a few seconds; where a launcher
 * ends them it does so earlier. */
#ifndef TMD_WATCHDOG_H
#define TMD_WATCHDOG_H

#include "train/comm.h"
#include "train/phase_timer.h"

struct Watchdog;

/* Collective; limit in seconds, 0: no watchdog, *started is NULL, and all else does nothing with
 * it.  Call from the main thread, which is then in PHASE_OPEN. */
bool watchdog_start(struct Comm *comm, double limit, struct Watchdog **started, struct Error *err);

/* The main thread enters a phase.  All ranks enter the same ones in the same order. */
void watchdog_enter(struct Watchdog *dog, enum Phase phase);
/* It is still at work there. */
void watchdog_alive(struct Watchdog *dog);

/* Takes leave of the other ranks, which may go on, and frees. */
void watchdog_stop(struct Watchdog *dog);

#endif
