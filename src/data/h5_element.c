/* HDF5's types for our elements, and back from the type of a stored array. */
#include "data/h5_element.h"

#include <stdlib.h>
#include <string.h>

#include "data/h5_attr.h"

static const char bf16_attribute[] = "dtype";

const char *h5_element_name(int element) {
    switch (element) {
    case H5_U8:
        return "u8";
    case H5_U32:
        return "u32";
    case H5_TEXT:
        return "text";
    default:
        return dtype_name((enum Dtype)element);
    }
}

int64_t h5_element_bytes(int element) {
    switch (element) {
    case H5_U8:
        return 1;
    case H5_U32:
        return 4;
    case H5_TEXT:
        return 0;
    default:
        return dtype_bytes((enum Dtype)element);
    }
}

/* binary16: sign 1 bit, exponent 5 bits from bit 10 with bias 15, mantissa 10 bits. */
static hid_t float16_type(void) {
    hid_t type = H5Tcopy(H5T_IEEE_F32LE);
    H5Tset_fields(type, 15, 10, 5, 0, 10);
    H5Tset_size(type, 2);
    H5Tset_ebias(type, 15);
    return type;
}

static hid_t text_type(void) {
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, H5T_VARIABLE);
    H5Tset_cset(type, H5T_CSET_UTF8);
    return type;
}

hid_t h5_element_type(int element) {
    switch (element) {
    case DTYPE_F32:
        return H5Tcopy(H5T_IEEE_F32LE);
    case DTYPE_F64:
        return H5Tcopy(H5T_IEEE_F64LE);
    case DTYPE_I64:
        return H5Tcopy(H5T_STD_I64LE);
    case DTYPE_BF16:
        return H5Tcopy(H5T_STD_U16LE);
    case DTYPE_F16:
        return float16_type();
    case H5_U8:
        return H5Tcopy(H5T_STD_U8LE);
    case H5_U32:
        return H5Tcopy(H5T_STD_U32LE);
    case H5_TEXT:
        return text_type();
    default:
        return H5I_INVALID_HID;
    }
}

static bool is_marked_bf16(hid_t dataset) {
    struct Error ignored;
    char *name = NULL;
    bool marked = h5_attr_exists(dataset, bf16_attribute) &&
                  h5_attr_read_text(dataset, bf16_attribute, 16, &name, &ignored) &&
                  strcmp(name, dtype_name(DTYPE_BF16)) == 0;
    free(name);
    return marked;
}

int h5_element_of(hid_t dataset) {
    hid_t stored = H5Dget_type(dataset);
    int found = H5_ELEMENT_COUNT;
    if (H5Tget_class(stored) == H5T_STRING) {
        if (H5Tis_variable_str(stored) > 0) found = H5_TEXT; /* in either character set */
    } else {
        for (int element = 0; element < H5_TEXT && found == H5_ELEMENT_COUNT; element++) {
            hid_t type = h5_element_type(element);
            if (H5Tequal(stored, type) > 0) found = element;
            H5Tclose(type);
        }
    }
    H5Tclose(stored);
    if (found == DTYPE_BF16 && !is_marked_bf16(dataset)) found = H5_ELEMENT_COUNT;
    return found;
}

bool h5_element_mark(hid_t dataset, int element, struct Error *err) {
    if (element != DTYPE_BF16) return true;
    return h5_attr_write_text(dataset, bf16_attribute, dtype_name(DTYPE_BF16), err);
}
