/* The tables of machines: those that are shipped, and broken ones.  TMD_CONFIGS_DIR is the folder
 * configs/. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "config_fixture.h"
#include "train/machine.h"

static void test_shipped_tables(void **state) {
    (void)state;
    static const char *const gpus[] = {"h100", "h200", "a100", "b200"};
    static const char *const networks[] = {"nvlink", "infiniband", "ethernet"};
    for (int i = 0; i < 4; i++) {
        struct Machine machine = {0};
        struct Error err;
        char *path = xprintf(TMD_CONFIGS_DIR "/machines/gpu/%s.yaml", gpus[i]);
        if (!machine_load(&machine, path, &err)) fail_msg("%s", err.text);
        assert_int_equal(machine.node_gpus, 8);
        assert_true(machine.flops > 1e14 && machine.memory_bytes > 7e10);
        assert_true(machine.reached.memory > 0.5 && *machine.name);
        free(path);
    }
    for (int i = 0; i < 3; i++) {
        struct Network network = {0};
        struct Error err;
        char *path = xprintf(TMD_CONFIGS_DIR "/machines/network/%s.yaml", networks[i]);
        if (!network_load(&network, path, &err)) fail_msg("%s", err.text);
        assert_true(network.inside.bandwidth > 1e10 && network.message_seconds > 0.0);
        free(path);
    }
}

static const char good_network[] = "name: n\n"
                                   "inside:\n"
                                   "  bandwidth: 9e9\n"
                                   "  reached: 0.5\n"
                                   "across:\n"
                                   "  bandwidth: 0\n"
                                   "  reached: 1\n"
                                   "message:\n"
                                   "  seconds: 1.0e-5\n";

/* `good_network` with one line replaced (from 1), or one more at its end. */
static char *with_line(int line, const char *text) {
    char *lines = xstrdup(good_network), *result = xstrdup(""), *rest = lines;
    for (int i = 1; rest && *rest; i++) {
        char *next = strchr(rest, '\n');
        *next = '\0';
        char *longer = i == line && !*text ? xstrdup(result)
                                           : xprintf("%s%s\n", result, i == line ? text : rest);
        free(result);
        result = longer;
        rest = next + 1;
    }
    if (line == 0) {
        char *longer = xprintf("%s%s\n", result, text);
        free(result);
        result = longer;
    }
    free(lines);
    return result;
}

static void test_broken_tables(void **state) {
    static const struct {
        int line;
        const char *text;
        const char *message; /* behind the path */
    } rows[] = {
        {1, "name: ''", ":1: name: expected a non-empty string, got ''"},
        {1, "name: [a, b]", ":1: name: expected a non-empty string, got a list"},
        {3, "  bandwidth: fast", ":3: inside.bandwidth: expected a number, above 0, got 'fast'"},
        {3, "  bandwidth: '9e9'", ":3: inside.bandwidth: expected a number, above 0, got '9e9'"},
        {3, "  bandwidth: 0", ":3: inside.bandwidth: expected a number, above 0, got '0'"},
        {3, "  bandwidth: -1", ":3: inside.bandwidth: expected a number, above 0, got '-1'"},
        {3, "  bandwidth: inf", ":3: inside.bandwidth: expected a number, above 0, got 'inf'"},
        {3, "  bandwidth: nan", ":3: inside.bandwidth: expected a number, above 0, got 'nan'"},
        {3, "  bandwidth: 1e9 GB",
         ":3: inside.bandwidth: expected a number, above 0, got '1e9 GB'"},
        {3, "  bandwidth: [1, 2]", ":3: inside.bandwidth: expected a number, above 0, got a list"},
        {4, "  reached: 1.1",
         ":4: inside.reached: expected a number, above 0 and at most 1, got '1.1'"},
        {4, "  reached: 0",
         ":4: inside.reached: expected a number, above 0 and at most 1, got '0'"},
        {4, "",
         ": inside.reached: expected a number, above 0 and at most 1, got nothing: the key "
         "is missing"},
        {4, "  reachd: 0.5",
         ":4: inside.reachd: expected a key of the table, got one that it does not have"},
        {4, "  bandwidth: 1",
         ":4: inside.bandwidth: expected once, got a second one (the first is in line 3)"},
        {5, "acros:", ":5: acros: expected a key of the table, got one that it does not have"},
        {0, "message: 5",
         ":10: message: expected a key of the table, got one that it does not have"},
        {0, "\tx", NULL}, /* libyaml's words */
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *text = with_line(rows[i].line, rows[i].text);
        char *path = fixture_write_text(state, "network.yaml", text);
        struct Network network;
        struct Error err = {0};
        assert_false(network_load(&network, path, &err));
        assert_int_equal(err.exit_code, EXIT_USER);
        char *expected =
            xprintf("%s%s", path, rows[i].message ? rows[i].message : ":10: not valid");
        if (rows[i].message)
            assert_string_equal(err.text, expected);
        else
            assert_memory_equal(err.text, expected, strlen(expected));
        free(expected);
        free(path);
        free(text);
    }
    char *path = fixture_write_text(state, "network.yaml", good_network);
    struct Network network;
    struct Error err = {0};
    assert_true(network_load(&network, path, &err));
    assert_string_equal(network.name, "n");
    assert_true(network.inside.bandwidth == 9e9 && network.inside.reached == 0.5);
    assert_true(network.across.bandwidth == 0.0 && network.message_seconds == 1e-5);
    free(path);

    assert_false(network_load(&network, "no/such/file", &err));
    expect_contains(err.text, "no/such/file: cannot be opened: ");
    path = fixture_write_text(state, "gpu.yaml", "node:\n  gpus: 2.5\n");
    struct Machine machine;
    assert_false(machine_load(&machine, path, &err));
    expect_contains(err.text, ":2: node.gpus: expected an integer, 1 to 1000000, got '2.5'");
    free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shipped_tables),
        cmocka_unit_test_setup_teardown(test_broken_tables, fixture_set_up, fixture_tear_down),
    };
    return cmocka_run_group_tests_name("machine", tests, NULL, NULL);
}
