/* Opening and creating files with properties that switch off what is refused, and finding objects
 * without following links. */
#include "data/h5_file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/atomic_file.h"
#include "data/h5_sink.h"
#include "data/h5_source.h"
#include "data/h5_zstd.h"

void h5_quiet(void) {
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

static herr_t keep_description(unsigned depth, const H5E_error2_t *entry, void *text) {
    (void)depth; /* the walk goes towards the innermost entry; the last one stays */
    if (entry->desc) snprintf(text, 256, "%s", entry->desc);
    return 0;
}

bool h5_error(struct Error *err, const char *format, ...) {
    char reason[256] = "";
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_DOWNWARD, keep_description, reason);
    for (char *at = reason; *at; at++) /* some of HDF5's reasons hold a date with its line end */
        if (*at == '\n') *at = ' ';
    va_list args;
    va_start(args, format);
    char text[sizeof err->text];
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (!reason[0]) return error_set(err, "%s", text);
    return error_set(err, "%s (HDF5: %s)", text, reason);
}

char *h5_where(hid_t object) {
    char name[512] = "?", file[512] = "?";
    H5Iget_name(object, name, sizeof name);
    H5Fget_name(object, file, sizeof file);
    if (!strcmp(name, "/")) return xprintf("'%s'", file);
    return xprintf("'%s' of '%s'", name, file);
}

static bool prepare_library(struct Error *err) {
    h5_quiet();
    hbool_t thread_safe = false;
    if (H5open() < 0 || H5is_library_threadsafe(&thread_safe) < 0 || !thread_safe)
        return error_set(err, "this HDF5 library was built without thread safety, which reading "
                              "ahead in a thread needs");
    if (H5PLset_loading_state(0) < 0 || !h5_zstd_register())
        return h5_error(err, "cannot set up the HDF5 library");
    return true;
}

static bool check_regular_file(const char *path, struct Error *err) {
    struct stat status;
    if (stat(path, &status) != 0)
        return error_set(err, "cannot open '%s': %s", path, strerror(errno));
    if (!S_ISREG(status.st_mode)) return error_set(err, "'%s' is not a file", path);
    if (status.st_size == 0) return error_set(err, "'%s' is empty", path);
    if (access(path, R_OK) != 0)
        return error_set(err, "cannot read '%s': %s", path, strerror(errno));
    return true;
}

/* One file and no other, whatever the environment or the file's superblock asks for.  The format of
 * HDF5 1.10 is the first whose every piece of metadata carries a checksum: a flipped bit in a
 * header is found instead of believed. */
static hid_t access_list(bool for_writing) {
    enum { METADATA_BYTES = 1 << 14 }; /* in a row: between data, it keeps that from being read so */
    hid_t list = H5Pcreate(H5P_FILE_ACCESS);
    bool good = list >= 0 && (for_writing ? h5_sink_set(list) : h5_source_set(list)) &&
                H5Pset_fclose_degree(list, H5F_CLOSE_STRONG) >= 0 &&
                H5Pset_libver_bounds(list, H5F_LIBVER_V110, H5F_LIBVER_LATEST) >= 0 &&
                H5Pset_file_locking(list, false, true) >= 0 &&
                H5Pset_meta_block_size(list, METADATA_BYTES) >= 0;
    TMD_CHECK(good, "HDF5 refused the access properties of a file");
    return list;
}

bool h5_open_read(const char *path, hid_t *file, struct Error *err) {
    *file = H5I_INVALID_HID;
    if (!prepare_library(err) || !check_regular_file(path, err)) return false;
    if (H5Fis_hdf5(path) <= 0) return error_set(err, "'%s' is not an HDF5 file", path);
    hid_t list = access_list(false);
    *file = H5Fopen(path, H5F_ACC_RDONLY, list);
    if (*file < 0) h5_error(err, "'%s' is damaged or cut short", path);
    H5Pclose(list);
    return *file >= 0;
}

/* Creation properties without times, so that equal contents make equal files. */
static hid_t timeless_list(hid_t class) {
    hid_t list = H5Pcreate(class);
    TMD_CHECK(list >= 0 && H5Pset_obj_track_times(list, false) >= 0,
              "HDF5 refused creation properties");
    return list;
}

bool h5_create(const char *path, hid_t *file, struct Error *err) {
    *file = H5I_INVALID_HID;
    if (!prepare_library(err)) return false;
    int descriptor = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (descriptor < 0) return error_set(err, "cannot create '%s': %s", path, strerror(errno));
    close(descriptor);
    hid_t list = access_list(true), creation = timeless_list(H5P_FILE_CREATE);
    *file = H5Fcreate(path, H5F_ACC_TRUNC, creation, list);
    H5Pclose(creation);
    if (*file < 0) {
        h5_error(err, "cannot create '%s'", path);
        unlink(path);
    }
    H5Pclose(list);
    return *file >= 0;
}

static bool write_error(struct Error *err, const char *path, int code) {
    return error_set(err, "cannot write '%s': %s", path, strerror(code));
}

bool h5_check_written(hid_t file, const char *path, struct Error *err) {
    int code = h5_sink_error(file);
    return code == 0 || write_error(err, path, code);
}

bool h5_commit(hid_t file, const char *temporary, const char *path, struct Error *err) {
    h5_quiet();
    struct H5Sink *sink = h5_sink_hold(file);
    bool good = H5Fclose(file) >= 0 || h5_error(err, "cannot complete '%s'", temporary);
    int code = h5_sink_release(sink);
    if (code != 0) good = write_error(err, temporary, code);
    if (good) return atomic_file_publish(temporary, path, err);
    unlink(temporary);
    return false;
}

void h5_discard(hid_t file, const char *temporary) {
    h5_quiet();
    H5Fclose(file);
    unlink(temporary);
}

/* Called by HDF5 before it follows an external link. */
static herr_t refuse_external_link(const char *parent_file, const char *parent_group,
                                   const char *child_file, const char *child_object,
                                   unsigned *access_flags, hid_t file_access, void *context) {
    (void)parent_file, (void)parent_group, (void)child_file, (void)child_object;
    (void)access_flags, (void)file_access, (void)context;
    return -1;
}

static hid_t link_access_list(void) {
    hid_t list = H5Pcreate(H5P_LINK_ACCESS);
    TMD_CHECK(list >= 0 && H5Pset_elink_cb(list, refuse_external_link, NULL) >= 0,
              "HDF5 gave no property list");
    return list;
}

bool h5_exists(hid_t location, const char *name) {
    h5_quiet();
    hid_t list = link_access_list();
    bool exists = H5Lexists(location, name, list) > 0;
    H5Pclose(list);
    return exists;
}

static bool check_hard_link(hid_t location, const char *path, const char *where,
                            struct Error *err) {
    H5L_info_t info;
    if (!path[0] || !h5_exists(location, path))
        return error_set(err, "%s has no '%s'", where, path);
    if (H5Lget_info(location, path, &info, H5P_DEFAULT) < 0)
        return h5_error(err, "cannot look up '%s' in %s", path, where);
    if (info.type != H5L_TYPE_HARD)
        return error_set(err, "'%s' in %s is a link to somewhere else, which is never followed",
                         path, where);
    return true;
}

/* From the first component of `name` on: no look-up ever passes through an unchecked link. */
static bool check_hard_links(hid_t location, const char *name, const char *where,
                             struct Error *err) {
    char *path = xstrdup(name);
    bool good = true;
    for (char *end = strchr(path, '/'); good && end; end = strchr(end + 1, '/')) {
        *end = '\0';
        good = check_hard_link(location, path, where, err);
        *end = '/';
    }
    good = good && check_hard_link(location, path, where, err);
    free(path);
    return good;
}

static const char *type_name(H5I_type_t type) {
    return type == H5I_GROUP ? "group" : type == H5I_DATASET ? "dataset" : "named type";
}

bool h5_open_object(hid_t location, const char *name, H5I_type_t type, hid_t *object,
                    struct Error *err) {
    h5_quiet();
    *object = H5I_INVALID_HID;
    char *where = h5_where(location);
    if (check_hard_links(location, name, where, err)) {
        hid_t list = link_access_list();
        *object = H5Oopen(location, name, list);
        if (*object < 0) h5_error(err, "cannot open '%s' in %s", name, where);
        H5Pclose(list);
    }
    if (*object >= 0 && H5Iget_type(*object) != type) {
        error_set(err, "'%s' in %s: expected a %s, got a %s", name, where, type_name(type),
                  type_name(H5Iget_type(*object)));
        H5Oclose(*object);
        *object = H5I_INVALID_HID;
    }
    free(where);
    return *object >= 0;
}

bool h5_create_group(hid_t location, const char *name, hid_t *group, struct Error *err) {
    h5_quiet();
    char *where = h5_where(location);
    hid_t creation = timeless_list(H5P_GROUP_CREATE);
    *group = H5Gcreate2(location, name, H5P_DEFAULT, creation, H5P_DEFAULT);
    H5Pclose(creation);
    if (*group < 0) h5_error(err, "cannot create the group '%s' in %s", name, where);
    free(where);
    return *group >= 0;
}
