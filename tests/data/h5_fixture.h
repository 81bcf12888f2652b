/* Small HDF5 files in the group's scratch folder (scratch.h), for the tests of h5_*.h.  Any failure
 * is the running test's. */
#ifndef TMD_TESTS_H5_FIXTURE_H
#define TMD_TESTS_H5_FIXTURE_H

#include <hdf5.h>

/* A new file, and one to read; the caller closes it. */
hid_t h5_fixture_create(const char *name);
hid_t h5_fixture_open(const char *name);

/* An array of four f32, which is read without complaint. */
void h5_fixture_array(hid_t file, const char *name);

#endif
