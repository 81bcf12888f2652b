/* Cuts flat ranges into boxes, each of which is one mapping. */
#include "data/h5_virtual.h"

#include <stdlib.h>

#include "data/h5_array.h"
#include "data/h5_element.h"
#include "data/h5_file.h"

/* Neighbours in row-major order that form a box. */
struct Box {
    hsize_t start[H5_MAX_RANK], count[H5_MAX_RANK];
    hsize_t n_elems;
};

/* The largest box that begins with element `begin` and does not reach `end`: of all dimensions
 * whose slices begin there, the outermost with a whole slice before `end`, and as many of its
 * slices as there are before `end` and in this dimension. */
static struct Box first_box(int rank, const int64_t *dims, int64_t begin, int64_t end) {
    struct Box box;
    int64_t stride = 1; /* elements of a slice */
    for (int d = 0; d < rank; d++) stride *= dims[d];
    bool found = false;
    for (int d = 0; d < rank; d++) {
        stride /= dims[d];
        int64_t index = begin / stride % dims[d];
        if (found) {
            box.start[d] = 0;
            box.count[d] = (hsize_t)dims[d];
            continue;
        }
        box.start[d] = (hsize_t)index;
        box.count[d] = 1;
        if (begin % stride != 0 || begin + stride > end) continue;
        int64_t n_slices = (end - begin) / stride, room = dims[d] - index;
        box.count[d] = (hsize_t)(n_slices < room ? n_slices : room);
        box.n_elems = box.count[d] * (hsize_t)stride;
        found = true;
    }
    return box;
}

/* HDF5 takes "%b" in the name of a source for the number of a block, and "%%" for "%". */
static char *escape(const char *name) {
    char *escaped = xprintf("%s%s", name, name), *at = escaped; /* room for every byte twice */
    for (; *name; name++) {
        if (*name == '%') *at++ = '%';
        *at++ = *name;
    }
    *at = '\0';
    return escaped;
}

static bool map_source(hid_t list, hid_t space, int rank, const int64_t *dims,
                       const struct H5Source *source) {
    hsize_t n_source = (hsize_t)(source->end - source->begin), offset = 0;
    hid_t source_space = H5Screate_simple(1, &n_source, NULL);
    char *file = escape(source->file), *dataset = escape(source->dataset);
    bool mapped = source_space >= 0;
    while (mapped && offset < n_source) {
        struct Box box = first_box(rank, dims, source->begin + (int64_t)offset, source->end);
        mapped =
            H5Sselect_hyperslab(space, H5S_SELECT_SET, box.start, NULL, box.count, NULL) >= 0 &&
            H5Sselect_hyperslab(source_space, H5S_SELECT_SET, &offset, NULL, &box.n_elems, NULL) >=
                0 &&
            H5Pset_virtual(list, space, file, dataset, source_space) >= 0;
        offset += box.n_elems;
    }
    free(dataset);
    free(file);
    H5Sclose(source_space);
    return mapped;
}

bool h5_virtual_create(hid_t location, const char *name, int rank, const int64_t *dims,
                       int64_t n_sources, const struct H5Source *sources, struct Error *err) {
    TMD_CHECK(rank >= 1 && rank <= H5_MAX_RANK, "'%s': %d dimensions", name, rank);
    h5_quiet();
    hsize_t extent[H5_MAX_RANK];
    for (int d = 0; d < rank; d++) extent[d] = (hsize_t)dims[d];
    hid_t space = H5Screate_simple(rank, extent, NULL), type = h5_element_type(DTYPE_F32);
    hid_t list = H5Pcreate(H5P_DATASET_CREATE);
    bool good = list >= 0 && space >= 0 && H5Pset_obj_track_times(list, false) >= 0;
    for (int64_t i = 0; good && i < n_sources; i++)
        good = map_source(list, space, rank, dims, &sources[i]);
    if (good) H5Sselect_all(space);
    hid_t dataset = H5I_INVALID_HID;
    if (good) dataset = H5Dcreate2(location, name, type, space, H5P_DEFAULT, list, H5P_DEFAULT);
    if (dataset < 0) {
        char *where = h5_where(location);
        h5_error(err, "cannot create the virtual dataset '%s' in %s", name, where);
        free(where);
    }
    if (dataset >= 0) H5Dclose(dataset);
    H5Pclose(list);
    H5Tclose(type);
    H5Sclose(space);
    return dataset >= 0;
}
