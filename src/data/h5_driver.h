/* What the file drivers of h5_sink.c and h5_source.c share: where HDF5 declares their interface. */
#ifndef TMD_DATA_H5_DRIVER_H
#define TMD_DATA_H5_DRIVER_H

#include <hdf5.h>

/* Later versions moved the interface to a header of its own and want to know which one is meant, and a
 * number that is the driver's own. */
#if H5_VERSION_GE(1, 13, 2)
#include <H5FDdevelop.h>
#define H5_DRIVER_VERSION(number)                                                                  \
    .version = H5FD_CLASS_VERSION, .value = (H5FD_class_value_t)(number),
#else
#define H5_DRIVER_VERSION(number)
#endif

#endif
