/* Calls cmd_plan with stdout and stderr turned into files. */
#include "plan_command.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "config_fixture.h"
#include "train/cmd_plan.h"

int run_plan(void **state, int n, const char *const *words) {
    char *argv[24] = {xstrdup("plan")};
    assert_true(n < 23);
    for (int i = 0; i < n; i++) argv[i + 1] = xstrdup(words[i]);
    char *out = xprintf("%s/out", (char *)*state), *error = xprintf("%s/error", (char *)*state);
    int saved[2] = {dup(1), dup(2)};
    fflush(NULL);
    assert_non_null(freopen(out, "w", stdout));
    assert_non_null(freopen(error, "w", stderr));
    char *own[24];
    memcpy(own, argv, sizeof own); /* parsing reorders */
    int code = cmd_plan(n + 1, argv);
    fflush(NULL);
    dup2(saved[0], 1), dup2(saved[1], 2);
    close(saved[0]), close(saved[1]);
    for (int i = 0; i <= n; i++) free(own[i]);
    free(out);
    free(error);
    return code;
}

void expect_in_file(void **state, const char *name, const char *part) {
    char text[65536], *path = xprintf("%s/%s", (char *)*state, name);
    FILE *in = fopen(path, "r");
    assert_non_null(in);
    text[fread(text, 1, sizeof text - 1, in)] = '\0';
    fclose(in);
    free(path);
    expect_contains(text, part);
}
