/* Asks the libraries for their versions. */
#include "data/library_versions.h"

#include <hdf5.h>
#include <stdio.h>
#include <zstd.h>

void data_library_versions(char *text, size_t n_bytes) {
    unsigned major = 0, minor = 0, release = 0;
    H5get_libversion(&major, &minor, &release);
    snprintf(text, n_bytes, "HDF5 %u.%u.%u, zstd %s", major, minor, release, ZSTD_versionString());
}
