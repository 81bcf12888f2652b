/* SIGTERM and SIGUSR1 ask a run to write a checkpoint and end (EXIT_INTERRUPTED).  Schedulers send
 * one of them before they take a node away, to one rank or to all, once or again and again. */
#ifndef TMD_RUN_SIGNALS_H
#define TMD_RUN_SIGNALS_H

#include "error.h"

/* From now on they only leave word. */
void run_signals_install(void);
/* Whether one has arrived at this process. */
bool run_signals_arrived(void);
/* The same for a run that has not begun, with nothing new to save: false, with EXIT_INTERRUPTED, if
 * one has arrived. */
bool run_signals_none_early(struct Error *err);

#endif
