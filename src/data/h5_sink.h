/* The file driver of the HDF5 files that we write: it hides a full disk from the library.
 *
 * HDF5 1.10 does not survive a failed write: the file cannot be closed any more, and the program
 * crashes when it ends.  This driver writes as the library's own does, but on the first failure it
 * notes errno, and from then on pretends that all writes succeed.  So a file can always be closed;
 * its writer asks afterwards whether all was written. */
#ifndef TMD_DATA_H5_SINK_H
#define TMD_DATA_H5_SINK_H

#include <hdf5.h>
#include <stdbool.h>

struct H5Sink;

/* Makes a file access property list use the driver.  False: HDF5 refused. */
bool h5_sink_set(hid_t access_list);

/* errno of the first write to `file` that failed, or 0.  The file must have been created through a
 * list that h5_sink_set prepared. */
int h5_sink_error(hid_t file);

/* To ask once more after the file was closed: hold before, release after. */
struct H5Sink *h5_sink_hold(hid_t file);
int h5_sink_release(struct H5Sink *sink);

#endif
