/* The file driver of the HDF5 files that we read: it refuses addresses beyond the end of the file.
 *
 * A damaged or hostile header may name any address and length.  The library's own driver hands out
 * zeros for what lies beyond the end, and a cache above it, which this driver's features leave out,
 * adds address and length without looking for overflow, and crashes.  Here such a read fails, and the
 * library reports it as it does any other. */
#ifndef TMD_DATA_H5_SOURCE_H
#define TMD_DATA_H5_SOURCE_H

#include <hdf5.h>
#include <stdbool.h>

/* Makes a file access property list use the driver, for reading.  What H5Fget_vfd_handle gives is,
 * as with the library's own driver, a pointer to the descriptor.  False: HDF5 refused. */
bool h5_source_set(hid_t access_list);

#endif
