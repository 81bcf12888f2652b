/* SIGTERM and SIGUSR1 ask a run to write a checkpoint and end (EXIT_INTERRUPTED).  Schedulers send one
 * of them before they take a node away. */
#ifndef TMD_RUN_SIGNALS_H
#define TMD_RUN_SIGNALS_H

#include <stdbool.h>

void run_signals_install(void);
/* Whether one has arrived at this process. */
bool run_signals_arrived(void);

#endif
