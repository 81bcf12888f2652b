/* /ROLE/KIND/NAME, never deeper, so that no cycle of links can trap the walk; every step goes
 * through h5_open_object, which follows no link out of the file. */
#include "data/checkpoint_walk.h"

#include <stdlib.h>
#include <string.h>

#include "data/h5_array.h"
#include "data/h5_attr.h"
#include "data/h5_file.h"

/* ---- names in a file ---- */

struct Names {
    char **items;
    int64_t n;
    bool insane; /* one of them cannot be a name of ours */
};

static void add_name(struct Names *names, const char *name) {
    if (!ckpt_name_is_sane(name)) names->insane = true;
    names->items = xrealloc(names->items, (size_t)(names->n + 1) * sizeof *names->items);
    names->items[names->n++] = xstrdup(name);
}

static herr_t add_link(hid_t group, const char *name, const H5L_info_t *info, void *names) {
    (void)group, (void)info;
    add_name(names, name);
    return 0;
}

static herr_t add_attribute(hid_t object, const char *name, const H5A_info_t *info, void *names) {
    (void)object, (void)info;
    add_name(names, name);
    return 0;
}

static void free_names(struct Names *names) {
    for (int64_t i = 0; i < names->n; i++) free(names->items[i]);
    free(names->items);
}

static bool check_names(const struct Names *names, bool listed, const char *what,
                        struct Error *err) {
    if (!listed) return h5_error(err, "its %s cannot be listed", what);
    return !names->insane || error_set(err, "one of its %s has an impossible name", what);
}

/* ---- values ---- */

/* What an attribute holds, as far as we write such a thing.  Texts of variable length are none of
 * ours: they lie in a heap that HDF5 1.10 reads without end when it is damaged. */
static bool find_kind(hid_t file, const char *key, enum CkptKind *kind) {
    hid_t attribute = H5Aopen(file, key, H5P_DEFAULT), type = H5Aget_type(attribute);
    H5T_class_t class = H5Tget_class(type);
    bool ours = true;
    if (class == H5T_INTEGER)
        *kind = CKPT_INT;
    else if (class == H5T_FLOAT)
        *kind = CKPT_REAL;
    else if (class == H5T_STRING && H5Tis_variable_str(type) == 0)
        *kind = CKPT_TEXT;
    else
        ours = false;
    H5Tclose(type);
    H5Aclose(attribute);
    return ours;
}

static bool load_value(struct CkptContents *contents, hid_t file, const char *key,
                       struct Error *err) {
    enum CkptKind kind;
    int64_t integer = 0;
    double real = 0;
    char *text = NULL;
    bool loaded = false;
    if (!find_kind(file, key, &kind))
        return error_set(
            err, "its attribute '%s' is neither integer, number nor text of fixed length", key);
    switch (kind) {
    case CKPT_INT:
        loaded = h5_attr_read_i64(file, key, &integer, err);
        break;
    case CKPT_REAL:
        loaded = h5_attr_read_double(file, key, &real, err);
        break;
    case CKPT_TEXT:
        loaded = h5_attr_read_text(file, key, CKPT_MAX_TEXT, &text, err);
        break;
    }
    if (loaded) {
        struct CkptValue *value = ckpt_contents_add_value(contents, key, kind, text);
        value->integer = integer;
        value->real = real;
    }
    free(text);
    return loaded;
}

bool ckpt_walk_values(hid_t file, struct CkptContents *contents, struct Error *err) {
    h5_quiet();
    struct Names keys = {0};
    bool listed = H5Aiterate2(file, H5_INDEX_NAME, H5_ITER_NATIVE, NULL, add_attribute, &keys) >= 0;
    bool loaded = check_names(&keys, listed, "attributes", err);
    for (int64_t i = 0; loaded && i < keys.n; i++) {
        if (strcmp(keys.items[i], CKPT_KEY_MANIFEST) != 0)
            loaded = load_value(contents, file, keys.items[i], err);
    }
    free_names(&keys);
    ckpt_contents_sort(contents);
    return loaded;
}

/* ---- values of the format ---- */

static const struct CkptValue *own_value(const struct CkptContents *contents, const char *key,
                                         enum CkptKind kind, struct Error *err) {
    const struct CkptValue *value = ckpt_contents_find_value(contents, key);
    if (value && value->kind == kind) return value;
    error_set(err, "has no attribute '%s' of the expected type", key);
    return NULL;
}

bool ckpt_own_int(const struct CkptContents *contents, const char *key, int64_t *value,
                  struct Error *err) {
    const struct CkptValue *found = own_value(contents, key, CKPT_INT, err);
    if (found) *value = found->integer;
    return found != NULL;
}

bool ckpt_own_text(const struct CkptContents *contents, const char *key, const char **text,
                   struct Error *err) {
    const struct CkptValue *found = own_value(contents, key, CKPT_TEXT, err);
    if (found) *text = found->text;
    return found != NULL;
}

bool ckpt_check_format(hid_t file, const struct CkptContents *contents, const char *format,
                       int64_t *version, struct Error *err) {
    const char *found;
    if (!ckpt_own_text(contents, CKPT_KEY_FORMAT, &found, err) ||
        !ckpt_own_int(contents, CKPT_KEY_VERSION, version, err))
        return error_prefix(err, "not a checkpoint of this program");
    if (strcmp(found, format) != 0)
        return error_set(err, "expected an attribute '" CKPT_KEY_FORMAT "' of value '%s', got '%s'",
                         format, found);
    if (*version < CKPT_VERSION_SINGLE || *version > CKPT_VERSION_SHARDED)
        return error_set(err, "is of format version %lld, this program reads versions %d to %d",
                         (long long)*version, CKPT_VERSION_SINGLE, CKPT_VERSION_SHARDED);
    return h5_attr_exists(file, CKPT_KEY_MANIFEST) ||
           error_set(err, "was never finished: it has no attribute '" CKPT_KEY_MANIFEST "'");
}

bool ckpt_check_manifest(hid_t file, const struct CkptContents *contents, struct Error *err) {
    int64_t stored;
    if (!h5_attr_read_i64(file, CKPT_KEY_MANIFEST, &stored, err)) return false;
    uint32_t found = ckpt_contents_manifest(contents);
    return stored == (int64_t)found || error_set(err,
                                                 "is damaged: names, shapes, values and checksums "
                                                 "have manifest %08x, stored is %08llx",
                                                 found, (unsigned long long)stored);
}

/* ---- tensors ---- */

static bool load_tensor(struct CkptContents *contents, hid_t group, const char *group_name,
                        const char *name, struct Error *err) {
    struct H5Array array = {0};
    int64_t crc32 = 0;
    if (!h5_array_open(group, name, &array, err)) return false;
    bool loaded = (array.element == DTYPE_F32 && array.rank >= 1 && array.rank <= CKPT_MAX_DIMS) ||
                  error_set(err, "'%s/%s' is not a float32 tensor", group_name, name);
    loaded =
        loaded && (array.chunk_rows > 0 || array.n_rows * array.row_bytes <= H5_MAX_CHUNK_BYTES ||
                   error_set(err, "'%s/%s' is too long not to be chunked", group_name, name));
    loaded = loaded && h5_attr_read_i64(array.dataset, CKPT_ATTR_CRC32, &crc32, err);
    if (loaded)
        ckpt_contents_add_tensor(contents, group_name, name, array.rank, array.dims)->crc32 =
            (uint32_t)crc32;
    h5_array_close(&array);
    return loaded;
}

typedef bool (*Visit)(struct CkptContents *contents, hid_t group, const char *group_name,
                      const char *name, struct Error *err);

/* Visits everything in the open group. */
static bool visit_group(struct CkptContents *contents, hid_t group, const char *group_name,
                        Visit visit, struct Error *err) {
    struct Names names = {0};
    bool listed = H5Literate(group, H5_INDEX_NAME, H5_ITER_NATIVE, NULL, add_link, &names) >= 0;
    bool visited = check_names(&names, listed, "groups or tensors", err);
    for (int64_t i = 0; visited && i < names.n; i++)
        visited = visit(contents, group, group_name, names.items[i], err);
    free_names(&names);
    return visited;
}

/* /ROLE/KIND */
static bool load_kind(struct CkptContents *contents, hid_t role, const char *role_name,
                      const char *kind_name, struct Error *err) {
    hid_t kind;
    if (!h5_open_object(role, kind_name, H5I_GROUP, &kind, err)) return false;
    char *name = xprintf("%s/%s", role_name, kind_name);
    bool loaded = visit_group(contents, kind, name, load_tensor, err);
    free(name);
    H5Gclose(kind);
    return loaded;
}

/* /ROLE */
static bool load_role(struct CkptContents *contents, hid_t root, const char *root_name,
                      const char *role_name, struct Error *err) {
    (void)root_name;
    hid_t role;
    if (!h5_open_object(root, role_name, H5I_GROUP, &role, err)) return false;
    bool loaded = visit_group(contents, role, role_name, load_kind, err);
    H5Gclose(role);
    return loaded;
}

bool ckpt_walk_tensors(hid_t file, struct CkptContents *contents, struct Error *err) {
    bool walked = visit_group(contents, file, "", load_role, err);
    ckpt_contents_sort(contents);
    return walked;
}
