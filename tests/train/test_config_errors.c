/* Configurations that are refused: each kind of mistake, and the whole message about it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "config_fixture.h"
#include "train/config.h"

static void test_unknown_names(void **state) {
    expect_load_error(state, "model:\n  dim: 96\n  nun_heads: 4\n", 3,
                      "unknown key 'model.nun_heads'; the nearest known key is 'model.num_heads'");
    expect_load_error(state, "model:\n  head_blocks: 4\n", 2,
                      "unknown key 'model.head_blocks'; the nearest known key is "
                      "'student.head_blocks'");
    expect_load_error(state, "optimizer:\n  epss: 1\n", 2, /* not model.eps, as close in spelling */
                      "unknown key 'optimizer.epss'; the nearest known key is 'optimizer.eps'");
    expect_load_error(state, "out: a\n\nmodle:\n  dim: 4\n", 3,
                      "unknown section 'modle'; the nearest known section is 'model'");
    expect_load_error(state, "outt: a\n", 1, "unknown key 'outt'; the nearest known key is 'out'");
    expect_load_error(state, "model.dim: 4\n", 1,
                      "unknown key 'model.dim'; in a file, keys stand inside their section, as in "
                      "'section:' and below it, indented, 'key: value'");
    expect_load_error(state, "\"\\e[31mred\": 4\n", 1, /* no colours on the user's terminal */
                      "unknown key '?[31mred'; the nearest known key is 'resume'");
}

static void test_duplicates(void **state) {
    expect_load_error(state, "model:\n  dim: 96\n  eps: 0.1\n  dim: 96\n", 4,
                      "duplicate key 'model.dim', first given on line 2");
    expect_load_error(state, "model:\n  dim: 96\ntrain:\n  seed: 1\nmodel:\n  eps: 0.1\n", 5,
                      "duplicate section 'model', first given on line 1");
    expect_load_error(state, "out: a\nout: a\n", 2, "duplicate key 'out', first given on line 1");
    expect_load_error(state, "model:\nmodel:\n", 2,
                      "duplicate section 'model', first given on line 1");
}

/* "SECTION:\n  KEY: VALUE" must fail on line 2 with "SECTION.KEY: expected EXPECTED, got GOT". */
static void expect_wrong(void **state, const char *section, const char *key, const char *value,
                         const char *expected, const char *got) {
    char *text = xprintf("%s:\n  %s: %s\n", section, key, value);
    char *message = xprintf("%s.%s: expected %s, got %s", section, key, expected, got);
    expect_load_error(state, text, 2, message);
    free(text);
    free(message);
}

static void test_wrong_integers(void **state) {
    static const struct {
        const char *value, *got;
    } cases[] = {
        {"1.5", "'1.5'"},
        {"abc", "'abc'"},
        {"\"96\"", "the string '96'"},
        {"[96]", "a list of 1"},
        {"", "nothing"},
        {"0x10", "'0x10'"},
        {"1_000", "'1_000'"},
        {"--1", "'--1'"},
        {"1e3", "'1e3'"},
        {"true", "'true'"},
        {"0", "'0'"},
        {"-6", "'-6'"},
        {"65537", "'65537'"},
        {"99999999999999999999", "'99999999999999999999'"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        expect_wrong(state, "model", "dim", cases[i].value, "an integer, 1 to 65536", cases[i].got);
    expect_wrong(state, "train", "seed", "9223372036854775808", "an integer, at least 0",
                 "'9223372036854775808'");
}

static void test_wrong_reals(void **state) {
    static const char *values[] = {".nan", "nan", ".inf", "-inf", "1e999", "1e-999", "0x1p3",
                                   ".",    "1e",  "e5",   "1e+",  "1..2",  "1,5",    "3 4"};
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        char *got = xprintf("'%s'", values[i]);
        expect_wrong(state, "stage2", "guidance", values[i], "a number, at least 0", got);
        expect_wrong(state, "student", "fusion_gate_init", values[i], "a number", got);
        free(got);
    }
    expect_wrong(state, "student", "t_max", "1", "a number, above 0 and below 1", "'1'");
    expect_wrong(state, "student", "t_max", "0", "a number, above 0 and below 1", "'0'");
}

static void test_wrong_types(void **state) {
    expect_wrong(state, "stage2", "rollout", "yes", "true or false", "'yes'");
    expect_wrong(state, "train", "recompute", "true", "none, full or keep_attention", "'true'");
    expect_wrong(state, "train", "recompute", "false", "none, full or keep_attention", "'false'");
    expect_wrong(state, "train", "stage", "stage3", "teacher, kd, stage1 or stage2", "'stage3'");
    expect_wrong(state, "init", "teacher", "null", "a string",
                 "nothing (the empty string is \"\")");
    expect_load_error(state, "out: [a]\n", 1, "out: expected a string, got a list of 1");
    expect_load_error(state, "out: {a: b}\n", 1, "out: expected a string, got a section");
    expect_load_error(state, "resume: \"\"\n", 1,
                      "resume: expected a non-empty string, got the string ''");
    expect_load_error(state, "model: 3\n", 1, "model: expected a section with keys, got a value");
    expect_load_error(state, "model: [dim]\n", 1,
                      "model: expected a section with keys, got a list");
}

/* "[x, x, ...]" */
static char *list_of(int n_items) {
    char *text = NULL;
    size_t n_bytes;
    FILE *out = open_memstream(&text, &n_bytes);
    fputc('[', out);
    for (int i = 0; i < n_items; i++) fputs("x, ", out);
    fputc(']', out);
    fclose(out);
    return text;
}

static void test_wrong_lists(void **state) {
    const char *files = "a list of at most 64 non-empty strings";
    expect_wrong(state, "model", "patch_size", "[1, 2]", "a list of 3 integers, 1 to 64",
                 "a list of 2");
    expect_wrong(state, "model", "patch_size", "[1, x, 2]", "a list of 3 integers, 1 to 64",
                 "'x' as item 2");
    expect_wrong(state, "optimizer", "betas", "[0.9, 1]",
                 "a list of 2 numbers, at least 0 and below 1", "'1' as item 2");
    expect_wrong(state, "kd", "skip_layers", "10", "a list of at most 64 integers, 0 to 999",
                 "'10'");
    expect_wrong(state, "data", "files", "[a, '']", files, "the string '' as item 2");
    char *too_many = list_of(65), *most = list_of(64);
    expect_wrong(state, "data", "files", too_many, files, "a list of 65");
    char *text = xprintf("data:\n  files: %s\n", most);
    struct Config config;
    fixture_load(state, &config, text);
    assert_int_equal(config.data.files.n, 64);
    config_free(&config);
    free(text);
    free(too_many);
    free(most);
}

static void test_yaml_that_is_refused(void **state) {
    expect_load_error(state, "model:\n  dim: 3\n eps: 1\n", 3,
                      "not valid YAML: did not find expected key while parsing a block mapping");
    expect_load_error(state, "out: \"a\n\n", 3,
                      "not valid YAML: found unexpected end of stream while scanning a quoted "
                      "scalar");
    expect_load_error(state, "out: a\nkind: \xff\n", 2,
                      "not valid YAML: invalid leading UTF-8 octet");
    expect_load_error(state, "model: &m\n  dim: 3\n", 1,
                      "expected a value, got the anchor &m (not supported here)");
    expect_load_error(state, "out: a\nkind: *m\n", 2,
                      "expected a value, got the alias *m (not supported here)");
    expect_load_error(state, "out: !!str a\n", 1,
                      "expected a value, got the tag tag:yaml.org,2002:str (not supported here)");
    expect_load_error(state, "out: \"a\\0b\"\n", 1,
                      "expected a text, got one that contains a NUL character");
    expect_load_error(state, "out: a\n---\nout: b\n", 2,
                      "expected the end of the file, got a second document");
    expect_load_error(state, "- a\n", 1, "expected sections and keys at the top level, got a list");
    expect_load_error(state, "abc\n", 1,
                      "expected sections and keys at the top level, got a single value");
    expect_load_error(state, "? [a, b]\n: c\n", 1,
                      "expected a key, got a list or a mapping in its place");
    expect_load_error(state, "model:\n  dim:\n    x: 3\n", 3,
                      "model.dim: expected a value or a list, got a mapping (nested too deep)");
    expect_load_error(state, "data:\n  files: [a, [b]]\n", 2,
                      "data.files: expected a list of plain values, got a list or a mapping inside "
                      "it (nested too deep)");
}

static void test_files_that_are_refused(void **state) {
    enum { LIMIT = 1 << 20 };
    struct Config c;
    struct Error err = {0};
    config_init(&c);
    char *missing = xprintf("%s/missing.yaml", (char *)*state);
    assert_false(config_load(&c, missing, &err));
    expect_contains(err.text, "missing.yaml: cannot be opened: No such file or directory");
    assert_false(config_load(&c, *state, &err));
    expect_contains(err.text, "not a regular file");
    char *pipe = xprintf("%s/pipe.yaml", (char *)*state);
    assert_int_equal(mkfifo(pipe, 0600), 0);
    assert_false(config_load(&c, pipe, &err));
    expect_contains(err.text, "pipe.yaml: not a regular file");
    unlink(pipe);
    free(pipe);
    char *text = xmalloc(LIMIT + 1);
    memset(text, '\n', LIMIT + 1);
    char *path = fixture_write(state, "big.yaml", text, LIMIT);
    assert_true(config_load(&c, path, &err));
    free(fixture_write(state, "big.yaml", text, LIMIT + 1));
    assert_false(config_load(&c, path, &err));
    expect_contains(err.text, "big.yaml: expected a configuration of at most 1048576 bytes");
    memset(text, '[', LIMIT); /* nested as deep as can be */
    free(fixture_write(state, "big.yaml", text, LIMIT));
    assert_false(config_load(&c, path, &err));
    expect_contains(err.text, "big.yaml:1: ");
    free(path);
    free(text);
    free(missing);
    config_free(&c);
}

static void test_bases_that_are_refused(void **state) {
    char *folder = *state;
    free(fixture_write_text(state, "bad.yaml", "model:\n  dim: x\n"));
    char *message = xprintf("base: %s/bad.yaml:2: model.dim: expected an integer, 1 to 65536, got "
                            "'x'",
                            folder);
    expect_load_error(state, "out: a\nbase: bad.yaml\n", 2, message);
    free(message);
    message = xprintf("base: %s/none.yaml: cannot be opened: No such file or directory", folder);
    expect_load_error(state, "base: none.yaml\n", 1, message);
    free(message);
    message = xprintf("base: '%s/./case.yaml' leads back to itself through its bases", folder);
    expect_load_error(state, "base: ./case.yaml\n", 1, message);
    free(message);
    expect_load_error(state, "base:\n", 1, "base: expected the path of a file, got nothing");
    expect_load_error(state, "base: [a]\n", 1, "base: expected the path of a file, got a list");
    free(fixture_write_text(state, "b.yaml", ""));
    expect_load_error(state, "base: b.yaml\nbase: b.yaml\n", 2,
                      "duplicate key 'base', first given on line 1");
}

static void test_overrides_that_are_refused(void **state) {
    (void)state;
    const char *form = "expected section.key=value, or key=value for a key at the top level";
    expect_override_error("model.dim", form);
    expect_override_error("", form);
    expect_override_error("=3", form);
    expect_override_error("model.dmi=3",
                          "unknown key 'model.dmi'; the nearest known key is 'model.dim'");
    expect_override_error("num_layer=3",
                          "unknown key 'num_layer'; the nearest known key is 'model.num_layers'");
    expect_override_error("modle.dim=3",
                          "unknown section 'modle'; the nearest known section is 'model'");
    expect_override_error("model=3",
                          "expected model.key=value, got a value for the section 'model'");
    expect_override_error("base=a.yaml", "base: expected in a file only, got an override");
    expect_override_error("model.dim=1.5", "model.dim: expected an integer, 1 to 65536, got '1.5'");
    expect_override_error("model.dim=[1]",
                          "model.dim: expected an integer, 1 to 65536, got a list of 1");
    expect_override_error("optimizer.betas=[0.5, 2]",
                          "optimizer.betas: expected a list of 2 numbers, at least 0 and below 1, "
                          "got '2' as item 2");
    expect_override_error("out={a: b}",
                          "expected a value or a list, got a mapping (nested too deep)");
    expect_override_error("out=[a", "not valid YAML: did not find expected ',' or ']' while "
                                    "parsing a flow sequence");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unknown_names),
        cmocka_unit_test(test_duplicates),
        cmocka_unit_test(test_wrong_integers),
        cmocka_unit_test(test_wrong_reals),
        cmocka_unit_test(test_wrong_types),
        cmocka_unit_test(test_wrong_lists),
        cmocka_unit_test(test_yaml_that_is_refused),
        cmocka_unit_test(test_files_that_are_refused),
        cmocka_unit_test(test_bases_that_are_refused),
        cmocka_unit_test(test_overrides_that_are_refused),
    };
    return cmocka_run_group_tests(tests, fixture_set_up, fixture_tear_down);
}
