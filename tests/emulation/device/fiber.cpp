/* Fibers.  A switch saves what the calling convention lets a callee keep, changes the stack, and
 * restores: a few nanoseconds, where ucontext makes a system call each time. */
#include "fiber.h"

#include <sys/mman.h>

#include <cstdio>
#include <cstdint>
#include <vector>

#include "device.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>
#endif

enum { PAGE_BYTES = 4096, STACK_BYTES = 256 * 1024 };

extern "C" void emu_switch_stack(void **save, void *load);

#if defined(__x86_64__)
asm(".text\n"
    ".globl emu_switch_stack\n"
    ".type emu_switch_stack, @function\n"
    "emu_switch_stack:\n"
    "    pushq %rbp\n"
    "    pushq %rbx\n"
    "    pushq %r12\n"
    "    pushq %r13\n"
    "    pushq %r14\n"
    "    pushq %r15\n"
    "    movq %rsp, (%rdi)\n"
    "    movq %rsi, %rsp\n"
    "    popq %r15\n"
    "    popq %r14\n"
    "    popq %r13\n"
    "    popq %r12\n"
    "    popq %rbx\n"
    "    popq %rbp\n"
    "    popq %rcx\n"
    "    jmp *%rcx\n"
    ".size emu_switch_stack, .-emu_switch_stack\n");

/* What the first switch pops: six registers and the address to return to, as if entry() had been
 * called from nowhere. */
static void *first_stack_pointer(uintptr_t top, void (*entry)(void)) {
    uintptr_t *frame = (uintptr_t *)top - 8;
    frame[6] = (uintptr_t)entry;
    return frame;
}
#elif defined(__aarch64__)
asm(".text\n"
    ".globl emu_switch_stack\n"
    ".type emu_switch_stack, %function\n"
    "emu_switch_stack:\n"
    "    sub sp, sp, #160\n"
    "    stp x19, x20, [sp, #0]\n"
    "    stp x21, x22, [sp, #16]\n"
    "    stp x23, x24, [sp, #32]\n"
    "    stp x25, x26, [sp, #48]\n"
    "    stp x27, x28, [sp, #64]\n"
    "    stp x29, x30, [sp, #80]\n"
    "    stp d8, d9, [sp, #96]\n"
    "    stp d10, d11, [sp, #112]\n"
    "    stp d12, d13, [sp, #128]\n"
    "    stp d14, d15, [sp, #144]\n"
    "    mov x9, sp\n"
    "    str x9, [x0]\n"
    "    mov sp, x1\n"
    "    ldp x19, x20, [sp, #0]\n"
    "    ldp x21, x22, [sp, #16]\n"
    "    ldp x23, x24, [sp, #32]\n"
    "    ldp x25, x26, [sp, #48]\n"
    "    ldp x27, x28, [sp, #64]\n"
    "    ldp x29, x30, [sp, #80]\n"
    "    ldp d8, d9, [sp, #96]\n"
    "    ldp d10, d11, [sp, #112]\n"
    "    ldp d12, d13, [sp, #128]\n"
    "    ldp d14, d15, [sp, #144]\n"
    "    add sp, sp, #160\n"
    "    ret\n"
    ".size emu_switch_stack, .-emu_switch_stack\n");

/* What the first switch loads: 20 registers, of which x30 is where it returns to. */
static void *first_stack_pointer(uintptr_t top, void (*entry)(void)) {
    uintptr_t *frame = (uintptr_t *)top - 20;
    frame[11] = (uintptr_t)entry;
    return frame;
}
#else
#error "fibers need a stack switch for this processor"
#endif

static std::vector<Fiber *> &fibers(void) {
    static std::vector<Fiber *> &all = *new std::vector<Fiber *>;
    return all;
}

/* The page below the stack is out of bounds: a thread that needs more stack faults. */
Fiber *fiber_create(void (*entry)(void)) {
    void *memory = mmap(NULL, PAGE_BYTES + STACK_BYTES, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, PAGE_BYTES, PROT_NONE) != 0)
        emu_reject("no memory for the stack of a thread");
    Fiber *fiber = new Fiber{};
    fiber->stack_bottom = (char *)memory + PAGE_BYTES;
    fiber->stack_bytes = STACK_BYTES;
    /* tops at different offsets in their pages, or all would compete for the same cache lines */
    uintptr_t color = fibers().size() * 320 % PAGE_BYTES;
    fiber->stack_pointer =
        first_stack_pointer((uintptr_t)fiber->stack_bottom + STACK_BYTES - color, entry);
    fibers().push_back(fiber);
    return fiber;
}

bool emu_explain_stack_address(uintptr_t address, char *text, size_t n_bytes) {
    for (const Fiber *fiber : fibers())
        if ((uintptr_t)fiber->stack_bottom - address <= PAGE_BYTES) {
            snprintf(text, n_bytes, "a thread used up its stack of %d KiB", STACK_BYTES / 1024);
            return true;
        }
    return false;
}

#ifdef __SANITIZE_ADDRESS__
static Fiber *left; /* the fiber that ran before */

void fiber_switch(Fiber *from, Fiber *to) {
    left = from;
    __sanitizer_start_switch_fiber(&from->sanitizer_state, to->stack_bottom, to->stack_bytes);
    emu_switch_stack(&from->stack_pointer, to->stack_pointer);
    fiber_arrive(from);
}

void fiber_arrive(Fiber *self) {
    __sanitizer_finish_switch_fiber(self->sanitizer_state, &left->stack_bottom, &left->stack_bytes);
}
#else
void fiber_switch(Fiber *from, Fiber *to) {
    emu_switch_stack(&from->stack_pointer, to->stack_pointer);
}

void fiber_arrive(Fiber *) {
}
#endif
