/* HDF5 attributes: numbers and texts come back, of whatever type; others are refused by name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "check.h"
#include "data/h5_attr.h"
#include "h5_fixture.h"
#include "scratch.h"

static void test_attributes(void **state) {
    (void)state;
    struct Error err;
    double list[3] = {1.5, -2.25, 1e-300}, back[4];
    int64_t number;
    double real;
    int n;
    char *text;
    hid_t file = h5_fixture_create("attributes.h5");
    check(h5_attr_write_i64(file, "i", INT64_MIN + 5, &err));
    check(h5_attr_write_i64(file, "i", -3, &err)); /* replaces */
    check(h5_attr_write_double(file, "d", 0.1, &err));
    check(h5_attr_write_doubles(file, "l", list, 3, &err));
    check(h5_attr_write_text(file, "t", "größer", &err));
    check(h5_attr_write_text(file, "e", "", &err));
    check(h5_attr_write_text(file, "bad", "\xFF", &err));
    H5Fclose(file);
    file = h5_fixture_open("attributes.h5");
    check(h5_attr_read_i64(file, "i", &number, &err));
    assert_int_equal(number, -3);
    check(h5_attr_read_double(file, "d", &real, &err));
    assert_true(real == 0.1);
    check(h5_attr_read_double(file, "i", &real, &err));
    assert_true(real == -3);
    check(h5_attr_read_doubles(file, "l", back, 4, &n, &err));
    assert_int_equal(n, 3);
    assert_memory_equal(back, list, sizeof list);
    check(h5_attr_read_text(file, "t", 8, &text, &err));
    assert_string_equal(text, "größer");
    free(text);
    check(h5_attr_read_text(file, "e", 8, &text, &err));
    assert_string_equal(text, "");
    free(text);
    assert_false(h5_attr_exists(file, "none"));
    check_error(h5_attr_read_i64(file, "none", &number, &err), "'none'");
    check_error(h5_attr_read_i64(file, "d", &number, &err), "is not one integer");
    check_error(h5_attr_read_i64(file, "t", &number, &err), "is not one integer");
    check_error(h5_attr_read_double(file, "l", &real, &err), "is not one number");
    check_error(h5_attr_read_double(file, "t", &real, &err), "is not one number");
    check_error(h5_attr_read_doubles(file, "l", back, 2, &n, &err), "1 to 2 numbers");
    check_error(h5_attr_read_text(file, "i", 8, &text, &err), "is not a UTF-8 text");
    check_error(h5_attr_read_text(file, "t", 7, &text, &err), "at most 7 bytes");
    check_error(h5_attr_read_text(file, "bad", 7, &text, &err), "UTF-8");
    H5Fclose(file);
}

static void add_attribute(hid_t file, const char *name, hid_t type, const void *value) {
    hid_t space = H5Screate(H5S_SCALAR);
    hid_t attribute = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    assert_true(H5Awrite(attribute, type, value) >= 0);
    H5Aclose(attribute);
    H5Sclose(space);
}

/* The types in which h5py stores Python's and NumPy's values. */
static void test_foreign_attributes(void **state) {
    (void)state;
    struct Error err;
    int64_t number;
    double real;
    char *text;
    int8_t members[2] = {0, 1};
    hid_t file = h5_fixture_create("foreign_attributes.h5");
    hid_t boolean = H5Tenum_create(H5T_STD_I8LE), fixed = H5Tcopy(H5T_C_S1);
    H5Tenum_insert(boolean, "FALSE", &members[0]);
    H5Tenum_insert(boolean, "TRUE", &members[1]);
    H5Tset_size(fixed, 5);
    H5Tset_strpad(fixed, H5T_STR_NULLPAD);
    add_attribute(file, "true", boolean, &members[1]);
    add_attribute(file, "fixed", fixed, "abcde");
    add_attribute(file, "u16", H5T_STD_U16BE, "\x01\x02");
    add_attribute(file, "f32", H5T_IEEE_F32LE, &(float){0.5f});
    H5Tclose(boolean);
    H5Tclose(fixed);
    check(h5_attr_read_i64(file, "true", &number, &err));
    assert_int_equal(number, 1);
    check(h5_attr_read_i64(file, "u16", &number, &err));
    assert_int_equal(number, 0x102);
    check(h5_attr_read_double(file, "f32", &real, &err));
    assert_true(real == 0.5);
    check(h5_attr_read_text(file, "fixed", 5, &text, &err));
    assert_string_equal(text, "abcde");
    free(text);
    check_error(h5_attr_read_text(file, "fixed", 4, &text, &err), "at most 4 bytes");
    H5Fclose(file);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attributes),
        cmocka_unit_test(test_foreign_attributes),
    };
    return cmocka_run_group_tests(tests, scratch_group_set_up, scratch_group_tear_down);
}
