/* Fibers: stacks of their own, between which one host thread switches by hand. */
#ifndef TMD_EMULATED_FIBER_H
#define TMD_EMULATED_FIBER_H

#include <cstddef>

struct Fiber {
    void *stack_pointer;      /* while it does not run */
    const void *stack_bottom; /* its lowest address; of the host's stack the sanitizer tells it */
    size_t stack_bytes;
    void *sanitizer_state;
};

/* A fiber that will call entry() when first switched to.  entry must never return. */
Fiber *fiber_create(void (*entry)(void));

/* Goes on in `to`; returns when something switches back to `from`. */
void fiber_switch(Fiber *from, Fiber *to);

/* The first thing that an entry() must call. */
void fiber_arrive(Fiber *self);

#endif
