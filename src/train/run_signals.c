/* The handler only sets a flag, which the trainer reads where it can stop. */
#include "train/run_signals.h"

#include <signal.h>
#include <string.h>

/* A signal handler can leave word only in a global. */
static volatile sig_atomic_t arrived;

static void on_signal(int signal_number) {
    (void)signal_number;
    arrived = 1;
}

void run_signals_install(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART; /* reads and writes in flight go on */
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGUSR1, &action, NULL);
}

bool run_signals_arrived(void) {
    return arrived != 0;
}

bool run_signals_none_early(struct Error *err) {
    if (!arrived) return true;
    error_set(err, "a signal came before the first iteration; start again to go on");
    err->exit_code = EXIT_INTERRUPTED;
    return false;
}
