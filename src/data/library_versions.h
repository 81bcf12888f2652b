/* Which libraries read and write the files of this room, for reports. */
#ifndef TMD_DATA_LIBRARY_VERSIONS_H
#define TMD_DATA_LIBRARY_VERSIONS_H

#include <stddef.h>

/* "HDF5 1.10.8, zstd 1.5.4": as the libraries that run say, not the headers at build time. */
void data_library_versions(char *text, size_t n_bytes);

#endif
