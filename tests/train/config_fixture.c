/* See config_fixture.h.  The folder holds plain files only. */
#include "config_fixture.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

int fixture_set_up(void **state) {
    *state = xstrdup("/tmp/tmd-config-XXXXXX");
    return mkdtemp(*state) ? 0 : -1;
}

int fixture_tear_down(void **state) {
    DIR *folder = opendir(*state);
    if (!folder) return -1;
    for (struct dirent *entry; (entry = readdir(folder));) {
        if (entry->d_name[0] == '.') continue;
        char *path = xprintf("%s/%s", (char *)*state, entry->d_name);
        remove(path);
        free(path);
    }
    closedir(folder);
    int failed = rmdir(*state);
    free(*state);
    return failed;
}

char *fixture_write(void **state, const char *name, const char *text, size_t n_bytes) {
    char *path = xprintf("%s/%s", (char *)*state, name);
    unlink(path); /* some file systems flush a file that is cut and written again: slow */
    FILE *out = fopen(path, "wb");
    assert_non_null(out);
    assert_int_equal(fwrite(text, 1, n_bytes, out), n_bytes);
    assert_int_equal(fclose(out), 0);
    return path;
}

char *fixture_write_text(void **state, const char *name, const char *text) {
    return fixture_write(state, name, text, strlen(text));
}

void fixture_load(void **state, struct Config *config, const char *text) {
    struct Error err = {0};
    char *path = fixture_write_text(state, "case.yaml", text);
    config_init(config);
    if (!config_load(config, path, &err)) fail_msg("%s", err.text);
    free(path);
}

void expect_load_error(void **state, const char *text, int line, const char *message) {
    struct Config config;
    struct Error err = {0};
    char *path = fixture_write_text(state, "case.yaml", text), *expected;
    if (line)
        expected = xprintf("%s:%d: %s", path, line, message);
    else
        expected = xstrdup(message);
    config_init(&config);
    assert_false(config_load(&config, path, &err));
    assert_string_equal(err.text, expected);
    assert_int_equal(err.exit_code, EXIT_USER);
    config_free(&config);
    free(expected);
    free(path);
}

void expect_override_error(const char *assignment, const char *message) {
    struct Config config;
    struct Error err = {0};
    config_init(&config);
    char *before = config_to_yaml(&config);
    char *expected = xprintf("override '%s': %s", assignment, message);
    assert_false(config_override(&config, assignment, &err));
    assert_string_equal(err.text, expected);
    assert_int_equal(err.exit_code, EXIT_USER);
    char *after = config_to_yaml(&config);
    assert_string_equal(before, after);
    config_free(&config);
    free(before);
    free(after);
    free(expected);
}

void expect_contains(const char *text, const char *part) {
    if (!strstr(text, part)) fail_msg("expected '%s' in '%s'", part, text);
}
