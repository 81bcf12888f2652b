/* Thin wrappers of h5_file.h and h5_array.h that fail the running test. */
#include "h5_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "check.h"
#include "data/h5_array.h"
#include "data/h5_file.h"
#include "scratch.h"

hid_t h5_fixture_create(const char *name) {
    struct Error err;
    hid_t file;
    char *path = scratch_path(scratch_folder(), name);
    check(h5_create(path, &file, &err));
    free(path);
    return file;
}

hid_t h5_fixture_open(const char *name) {
    struct Error err;
    hid_t file;
    char *path = scratch_path(scratch_folder(), name);
    check(h5_open_read(path, &file, &err));
    free(path);
    return file;
}

void h5_fixture_array(hid_t file, const char *name) {
    struct Error err;
    struct H5Array array;
    int64_t dims[1] = {4};
    struct H5Layout layout = {.element = DTYPE_F32, .rank = 1, .dims = dims};
    float values[4] = {1, 2, 3, 4};
    check(h5_array_create(file, name, &layout, &array, &err));
    check(h5_array_write(&array, 0, 4, values, &err));
    h5_array_close(&array);
}
