/* Touches of memory that must not be touched, made readable. */
#include <csignal>
#include <cstdio>
#include <cstring>
#include <unistd.h>

#include "device.h"

static struct sigaction before;

static void on_fault(int signal_number, siginfo_t *info, void *) {
    char text[512];
    uintptr_t address = (uintptr_t)info->si_addr;
    if (emu_explain_device_address(address, text, sizeof text) ||
        emu_explain_stack_address(address, text, sizeof text))
        emu_reject("%s", text);
    if (emu_work_at_hand()) emu_reject("a wild or misaligned access (address %p)", info->si_addr);
    sigaction(signal_number, &before, NULL); /* none of ours: faults again, for its own handler */
}

/* A stack of its own, since the fault may be that there is none left.  The sanitizer brings one. */
static void use_alternate_stack(void) {
    static thread_local char stack[64 * 1024];
    stack_t alternate = {};
    if (sigaltstack(NULL, &alternate) != 0 || !(alternate.ss_flags & SS_DISABLE)) return;
    alternate.ss_flags = 0;
    alternate.ss_sp = stack;
    alternate.ss_size = sizeof stack;
    sigaltstack(&alternate, NULL);
}

void emu_watch_faults(void) {
    struct sigaction now, ours = {};
    use_alternate_stack();
    sigaction(SIGSEGV, NULL, &now);
    if ((now.sa_flags & SA_SIGINFO) && now.sa_sigaction == on_fault) return;
    before = now;
    ours.sa_sigaction = on_fault;
    ours.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    sigaction(SIGSEGV, &ours, NULL);
}
