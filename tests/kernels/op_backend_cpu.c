/* The operation tests on the CPU backend. */
#include "op_check.h"

struct Backend *op_backend(void) {
    return backend_cpu_create();
}
