/* Every read checks class, size and count of the stored type before HDF5 converts anything. */
#include "data/h5_attr.h"

#include <stdlib.h>
#include <string.h>

#include "data/h5_file.h"
#include "data/utf8.h"

/* An attribute opened for reading, with its type and element count. */
struct Attribute {
    hid_t id, type;
    int64_t n;
    H5T_class_t class;
};

static void close_attribute(struct Attribute *attribute) {
    H5Tclose(attribute->type);
    H5Aclose(attribute->id);
}

/* "the attribute 'name' of '/object' of 'file'": what, where and why not. */
static bool attribute_error(struct Error *err, hid_t object, const char *name, const char *what) {
    char *where = h5_where(object);
    error_set(err, "the attribute '%s' of %s %s", name, where, what);
    free(where);
    return false;
}

static bool open_attribute(struct Attribute *attribute, hid_t object, const char *name,
                           struct Error *err) {
    if (!h5_attr_exists(object, name)) return attribute_error(err, object, name, "is missing");
    attribute->id = H5Aopen(object, name, H5P_DEFAULT);
    hid_t space = H5Aget_space(attribute->id);
    attribute->type = H5Aget_type(attribute->id);
    attribute->n = space < 0 ? -1 : H5Sget_simple_extent_npoints(space);
    attribute->class = H5Tget_class(attribute->type);
    H5Sclose(space);
    if (attribute->id >= 0 && attribute->type >= 0 && attribute->n >= 0) return true;
    close_attribute(attribute);
    return attribute_error(err, object, name, "is damaged");
}

bool h5_attr_exists(hid_t object, const char *name) {
    h5_quiet();
    return H5Aexists(object, name) > 0;
}

/* NumPy's bool is an enumeration over int8 { FALSE = 0, TRUE = 1 }. */
static bool read_enum(const struct Attribute *attribute, int64_t *value) {
    int8_t small = 0;
    hid_t base = H5Tget_super(attribute->type);
    bool good = base >= 0 && H5Tget_size(base) == 1 && H5Tget_size(attribute->type) == 1 &&
                H5Aread(attribute->id, attribute->type, &small) >= 0;
    H5Tclose(base);
    *value = small;
    return good;
}

bool h5_attr_read_i64(hid_t object, const char *name, int64_t *value, struct Error *err) {
    struct Attribute attribute;
    if (!open_attribute(&attribute, object, name, err)) return false;
    bool good = false;
    if (attribute.n == 1 && attribute.class == H5T_INTEGER && H5Tget_size(attribute.type) <= 8)
        good = H5Aread(attribute.id, H5T_NATIVE_INT64, value) >= 0;
    else if (attribute.n == 1 && attribute.class == H5T_ENUM)
        good = read_enum(&attribute, value);
    close_attribute(&attribute);
    return good || attribute_error(err, object, name, "is not one integer");
}

static bool is_number(const struct Attribute *attribute) {
    return (attribute->class == H5T_FLOAT || attribute->class == H5T_INTEGER) &&
           H5Tget_size(attribute->type) <= 8;
}

bool h5_attr_read_doubles(hid_t object, const char *name, double *values, int max_n, int *n,
                          struct Error *err) {
    struct Attribute attribute;
    if (!open_attribute(&attribute, object, name, err)) return false;
    bool good = attribute.n >= 1 && attribute.n <= max_n && is_number(&attribute) &&
                H5Aread(attribute.id, H5T_NATIVE_DOUBLE, values) >= 0;
    *n = (int)attribute.n;
    close_attribute(&attribute);
    char what[64];
    snprintf(what, sizeof what,
             max_n == 1 ? "is not one number" : "is not a list of 1 to %d numbers", max_n);
    return good || attribute_error(err, object, name, what);
}

bool h5_attr_read_double(hid_t object, const char *name, double *value, struct Error *err) {
    int n;
    return h5_attr_read_doubles(object, name, value, 1, &n, err);
}

static char *read_variable_text(const struct Attribute *attribute, int64_t max_bytes) {
    hid_t type = H5Tcopy(attribute->type);
    char *stored = NULL, *text = NULL;
    if (H5Aread(attribute->id, type, &stored) >= 0) {
        const char *found = stored ? stored : ""; /* HDF5 stores the empty string as none */
        if ((int64_t)strlen(found) <= max_bytes) text = xstrdup(found);
    }
    H5free_memory(stored);
    H5Tclose(type);
    return text;
}

static char *read_fixed_text(const struct Attribute *attribute, int64_t max_bytes) {
    size_t n_bytes = H5Tget_size(attribute->type);
    if ((int64_t)n_bytes > max_bytes) return NULL;
    char *text = xcalloc(n_bytes + 1);
    if (H5Aread(attribute->id, attribute->type, text) >= 0) return text;
    free(text);
    return NULL;
}

bool h5_attr_read_text(hid_t object, const char *name, int64_t max_bytes, char **text,
                       struct Error *err) {
    *text = NULL;
    struct Attribute attribute;
    if (!open_attribute(&attribute, object, name, err)) return false;
    if (attribute.class == H5T_STRING && attribute.n == 1)
        *text = H5Tis_variable_str(attribute.type) > 0 ? read_variable_text(&attribute, max_bytes)
                                                       : read_fixed_text(&attribute, max_bytes);
    close_attribute(&attribute);
    if (*text && utf8_valid(*text)) return true;
    free(*text);
    *text = NULL;
    char what[64];
    snprintf(what, sizeof what, "is not a UTF-8 text of at most %lld bytes", (long long)max_bytes);
    return attribute_error(err, object, name, what);
}

/* Writes n elements (n = 0: a scalar) of the memory type `memory`, stored as `stored`. */
static bool write_attribute(hid_t object, const char *name, hid_t stored, hid_t memory, int n,
                            const void *values, struct Error *err) {
    if (h5_attr_exists(object, name)) H5Adelete(object, name);
    hsize_t count = (hsize_t)n;
    hid_t space = n > 0 ? H5Screate_simple(1, &count, NULL) : H5Screate(H5S_SCALAR);
    hid_t attribute = H5Acreate2(object, name, stored, space, H5P_DEFAULT, H5P_DEFAULT);
    bool good = attribute >= 0 && H5Awrite(attribute, memory, values) >= 0;
    H5Aclose(attribute);
    H5Sclose(space);
    return good || attribute_error(err, object, name, "cannot be written");
}

bool h5_attr_write_i64(hid_t object, const char *name, int64_t value, struct Error *err) {
    return write_attribute(object, name, H5T_STD_I64LE, H5T_NATIVE_INT64, 0, &value, err);
}

bool h5_attr_write_double(hid_t object, const char *name, double value, struct Error *err) {
    return write_attribute(object, name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, 0, &value, err);
}

bool h5_attr_write_doubles(hid_t object, const char *name, const double *values, int n,
                           struct Error *err) {
    return write_attribute(object, name, H5T_IEEE_F64LE, H5T_NATIVE_DOUBLE, n, values, err);
}

bool h5_attr_write_text(hid_t object, const char *name, const char *text, struct Error *err) {
    size_t n_bytes = strlen(text);
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, n_bytes > 0 ? n_bytes : 1);
    H5Tset_strpad(type, H5T_STR_NULLPAD);
    H5Tset_cset(type, H5T_CSET_UTF8);
    bool good = write_attribute(object, name, type, type, 0, text, err);
    H5Tclose(type);
    return good;
}
