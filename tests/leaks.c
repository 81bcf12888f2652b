/* What LeakSanitizer shall not report: memory that libraries lose or keep for good.  Part of every
 * program of a sanitizer build, so that it holds wherever a program is started, also by mpirun.
 *
 * HDF5 1.10 loses some memory each time it refuses damaged metadata; fontconfig keeps a kilobyte;
 * Open MPI, its plugins and what they stand on keep what MPI_Init allocated.  __vasprintf_internal
 * is named because a stack ends there, within the C library: Open MPI prints into fresh memory with
 * vasprintf, which we do not use. */
#include <stddef.h>

const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void) {
    return "leak:libhdf5\n"
           "leak:libfontconfig\n"
           "leak:libmpi.so\n"
           "leak:libopen-\n"
           "leak:mca_\n"
           "leak:libpmix\n"
           "leak:libhwloc\n"
           "leak:libevent\n"
           "leak:__vasprintf_internal\n";
}

const char *__lsan_default_options(void);
const char *__lsan_default_options(void) {
    return "print_suppressions=0";
}

/* Stands before the C library's: Open MPI unloads its plugins, and code that is gone at the end of
 * the program has no name by which to suppress it. */
int dlclose(void *library);
int dlclose(void *library) {
    (void)library;
    return 0;
}
