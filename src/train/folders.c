/* What `mkdir -p` does. */
#include "train/folders.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static bool is_folder(const char *path) {
    struct stat status;
    return stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

bool folder_make(const char *path, struct Error *err) {
    char *partial = xstrdup(path);
    bool ok = true;
    if (!*path) ok = error_set(err, "a folder needs a name, got an empty one");
    for (char *slash = ok ? strchr(partial + 1, '/') : NULL; ok; slash = strchr(slash + 1, '/')) {
        if (slash) *slash = '\0';
        int reason = mkdir(partial, 0777) == 0 ? 0 : errno;
        if (reason == EEXIST) reason = is_folder(partial) ? 0 : ENOTDIR;
        if (reason)
            ok = error_set(err, "%s: cannot make this folder: %s", partial, strerror(reason));
        if (!slash) break;
        *slash = '/';
    }
    free(partial);
    return ok;
}
