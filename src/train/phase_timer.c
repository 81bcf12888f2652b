/* Each call books the time since the last one. */
#include "train/phase_timer.h"

#include <time.h>

const char *phase_name(enum Phase phase) {
    static const char *const names[PHASE_ALL] = {"data",    "compute", "reduce", "update", "save",
                                                 "preview", "open",    "pairs",  "close"};
    return names[phase];
}

double wall_seconds(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

void phase_timer_begin(struct PhaseTimer *timer) {
    *timer = (struct PhaseTimer){.last = wall_seconds()};
}

void phase_timer_end(struct PhaseTimer *timer, enum Phase phase) {
    double now = wall_seconds();
    timer->seconds[phase] += now - timer->last;
    timer->last = now;
}

void phase_timer_move(struct PhaseTimer *timer, enum Phase from, enum Phase to, double seconds) {
    timer->seconds[from] -= seconds;
    timer->seconds[to] += seconds;
}

double phase_timer_total(const struct PhaseTimer *timer) {
    double total = 0.0;
    for (int i = 0; i < PHASE_COUNT; i++) total += timer->seconds[i];
    return total;
}
