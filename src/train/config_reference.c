/* The reference page: a table per section, from the key table alone. */
#include <stdio.h>
#include <string.h>

#include "config.h"
#include "config_keys.h"

enum { PAGE_COLUMNS = 100 };

/* Words of `text` from column `indent` on, where the cursor stands; ends the line. */
static void print_wrapped(const char *text, int indent, FILE *out) {
    int column = indent;
    while (*text) {
        int n = (int)strcspn(text, " ");
        if (column > indent && column + 1 + n > PAGE_COLUMNS) {
            fprintf(out, "\n%*s", indent, "");
            column = indent;
        }
        column += fprintf(out, "%s%.*s", column > indent ? " " : "", n, text);
        text += n + (text[n] == ' ');
    }
    fputc('\n', out);
}

static int max(int a, int b) {
    return a > b ? a : b;
}

static void print_section(const struct ConfigSection *section, FILE *out) {
    int name_width = 0, default_width = 0;
    for (int i = 0; i < config_n_keys; i++) {
        if (strcmp(config_keys[i].section, section->name) != 0) continue;
        name_width = max(name_width, (int)strlen(config_keys[i].name));
        default_width = max(default_width, (int)strlen(config_keys[i].default_text));
    }
    fprintf(out, "\n%s%s%s\n", section->name, *section->name ? " - " : "", section->help);
    for (int i = 0; i < config_n_keys; i++) {
        const struct ConfigKey *key = &config_keys[i];
        if (strcmp(key->section, section->name) != 0) continue;
        char expects[CONFIG_EXPECTS_BYTES], text[CONFIG_EXPECTS_BYTES + 256];
        snprintf(text, sizeof text, "%s (%s)", key->help, config_key_expects(expects, key));
        int indent =
            fprintf(out, "  %-*s  %-*s  ", name_width, key->name, default_width, key->default_text);
        print_wrapped(text, indent, out);
    }
}

void config_print_keys(FILE *out) {
    fprintf(out, "Keys of a configuration file: name, default, meaning (what is expected).\n"
                 "All but base can be given on the command line too, as section.key=value.\n");
    for (int i = 0; i < config_n_sections; i++) print_section(&config_sections[i], out);
}
