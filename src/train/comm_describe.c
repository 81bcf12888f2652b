/* Asks MPI and NCCL for their versions. */
#include "train/comm_describe.h"

#include <mpi.h>
#include <stdio.h>
#include <string.h>

/* The library's name and version stand before the first comma or line end; what follows is how and
 * where it was built. */
static void describe_mpi(char *text, size_t n_bytes) {
    char library[MPI_MAX_LIBRARY_VERSION_STRING];
    int length;
    MPI_Get_library_version(library, &length);
    library[strcspn(library, ",\n")] = '\0';
    snprintf(text, n_bytes, "%s", library);
}

void comm_describe(const struct Comm *comm, char *text, size_t n_bytes) {
    if (strcmp(comm->name, "self") == 0)
        snprintf(text, n_bytes, "one process");
    else if (strcmp(comm->name, "mpi") == 0)
        describe_mpi(text, n_bytes);
    else if (strcmp(comm->name, "nccl") == 0)
        comm_nccl_describe(text, n_bytes);
    else
        snprintf(text, n_bytes, "%s", comm->name);
}
