/* Flags: defaults, forms, ranges, and one sentence for everything that is wrong. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "args.h"

struct Values {
    int64_t count, level;
    double rate;
    const char *out, *name, *type;
    bool quick;
};

#define AT(field) offsetof(struct Values, field)
static const struct Arg args[] = {
    {.name = "count", .type = ARG_INT, .offset = AT(count), .min = 1, .max = 9, .help = "how many"},
    {.name = "level",
     .type = ARG_INT,
     .offset = AT(level),
     .fallback = "3",
     .min = -5,
     .max = 9,
     .help = "effort"},
    {.name = "rate",
     .type = ARG_REAL,
     .offset = AT(rate),
     .fallback = "0.5",
     .min = 0,
     .max = 2,
     .help = "speed"},
    {.name = "out", .type = ARG_TEXT, .offset = AT(out), .fallback = "", .help = "file"},
    {.name = "name", .type = ARG_TEXT, .offset = AT(name), .fallback = "anon", .help = "who"},
    {.name = "type",
     .type = ARG_CHOICE,
     .offset = AT(type),
     .fallback = "f32",
     .choices = "u8|f32|bf16",
     .help = "stored as"},
    {.name = "quick", .type = ARG_SWITCH, .offset = AT(quick), .help = "hurry"},
};
static const struct ArgTable table = {
    .usage = "tmd test [flags] FILE...",
    .help = "Tests.",
    .args = args,
    .n_args = sizeof args / sizeof *args,
    .min_operands = 1,
    .max_operands = 2,
};

/* Splits `line` at its blanks and parses it; the operands are joined with commas. */
static enum ArgsResult parse(const char *line, struct Values *values, char joined[128],
                             struct Error *err) {
    static char words[256];
    char *argv[32] = {"test"};
    int argc = 1;
    snprintf(words, sizeof words, "%s", line);
    for (char *word = strtok(words, " "); word; word = strtok(NULL, " ")) argv[argc++] = word;
    struct Operands operands;
    enum ArgsResult result = args_parse(&table, argc, argv, values, &operands, err);
    joined[0] = '\0';
    for (int i = 0; result == ARGS_RUN && i < operands.n; i++) {
        strcat(joined, i ? "," : "");
        strcat(joined, operands.items[i]);
    }
    return result;
}

static void test_values(void **state) {
    (void)state;
    struct Error err;
    struct Values v;
    char joined[128];
    assert_int_equal(parse("--count 4 a", &v, joined, &err), ARGS_RUN);
    assert_true(v.count == 4 && v.level == 3 && v.rate == 0.5 && !v.quick && !v.out);
    assert_string_equal(v.name, "anon");
    assert_string_equal(v.type, "f32");
    assert_string_equal(joined, "a");
    assert_int_equal(
        parse("a --quick --count=9 --level -5 --rate=1e-1 --out=x=y b --type bf16 --name=", &v,
              joined, &err),
        ARGS_RUN);
    assert_true(v.count == 9 && v.level == -5 && v.rate == 0.1 && v.quick);
    assert_string_equal(v.out, "x=y");
    assert_string_equal(v.name, "");
    assert_string_equal(v.type, "bf16");
    assert_string_equal(joined, "a,b");
    assert_int_equal(parse("--count 1 -- --level --help", &v, joined, &err), ARGS_RUN);
    assert_string_equal(joined, "--level,--help");
}

static void test_errors(void **state) {
    (void)state;
    static const struct {
        const char *line, *reason;
    } cases[] = {
        {"a", "--count is missing"},
        {"--count 4", "too few arguments"},
        {"--count 4 a b c", "unexpected argument 'c'"},
        {"--count 0 a", "--count: expected an integer from 1 to 9, got '0'"},
        {"--count 10 a", "from 1 to 9"},
        {"--count 99999999999999999999 a", "from 1 to 9"},
        {"--count 4x a", "got '4x'"},
        {"--count= a", "got ''"},
        {"a --count", "--count needs a value"},
        {"--count 1 --count 2 a", "--count is given twice"},
        {"--count 1 --rate nan a", "--rate: expected a number from 0 to 2, got 'nan'"},
        {"--count 1 --rate 2.1 a", "got '2.1'"},
        {"--count 1 --type f64 a", "--type: expected one of u8|f32|bf16, got 'f64'"},
        {"--count 1 --type f3 a", "got 'f3'"},
        {"--count 1 --type u8|f32 a", "got 'u8|f32'"},
        {"--count 1 --quick=yes a", "--quick takes no value"},
        {"--count 1 --cou 2 a", "unknown flag '--cou'"},
        {"--count 1 --counter=2 a", "unknown flag '--counter'"},
    };
    struct Error err;
    struct Values v;
    char joined[128];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(parse(cases[i].line, &v, joined, &err), ARGS_WRONG);
        if (!strstr(err.text, cases[i].reason))
            fail_msg("'%s': expected '%s' in: %s", cases[i].line, cases[i].reason, err.text);
        assert_int_equal(err.exit_code, EXIT_USER);
    }
}

static void test_help(void **state) {
    (void)state;
    char *text = NULL;
    size_t n_bytes;
    FILE *out = open_memstream(&text, &n_bytes);
    args_print_help(&table, out);
    fclose(out);
    assert_non_null(strstr(text, "usage: tmd test [flags] FILE..."));
    assert_non_null(strstr(text, "--count N                how many (required)\n"));
    assert_non_null(strstr(text, "--rate X                 speed (default 0.5)\n"));
    assert_non_null(strstr(text, "--type u8|f32|bf16       stored as (default f32)\n"));
    assert_non_null(strstr(text, "--quick                  hurry\n"));
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_errors),
        cmocka_unit_test(test_help),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
