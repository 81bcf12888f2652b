/* The phases of a run, and the wall time of an iteration by phase. */
#ifndef TMD_PHASE_TIMER_H
#define TMD_PHASE_TIMER_H

enum Phase {
    PHASE_DATA,
    PHASE_COMPUTE,
    PHASE_REDUCE,
    PHASE_UPDATE,
    PHASE_SAVE,
    PHASE_PREVIEW,
    PHASE_COUNT,              /* of an iteration, which goes through them in this order */
    PHASE_OPEN = PHASE_COUNT, /* and around all iterations */
    PHASE_PAIRS,
    PHASE_CLOSE,
    PHASE_ALL
};

/* "data", "compute", "reduce", "update", "save", "preview"; "open", "pairs", "close" */
const char *phase_name(enum Phase phase);

/* Seconds of a clock that never jumps. */
double wall_seconds(void);

struct PhaseTimer {
    double seconds[PHASE_COUNT], last;
};

/* Sets all to zero and starts. */
void phase_timer_begin(struct PhaseTimer *timer);
/* Books the time since the last call on `phase`. */
void phase_timer_end(struct PhaseTimer *timer, enum Phase phase);
/* What was booked on one phase was another's. */
void phase_timer_move(struct PhaseTimer *timer, enum Phase from, enum Phase to, double seconds);
double phase_timer_total(const struct PhaseTimer *timer);

#endif
