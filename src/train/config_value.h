/* One value of the configuration: from YAML into the field of its key, and back. */
#ifndef TMD_CONFIG_VALUE_H
#define TMD_CONFIG_VALUE_H

#include <stdio.h>

#include "config.h"
#include "config_doc.h"
#include "config_keys.h"

/* Numbers are decimal (3, -6, .5, 1e-06), a real may be written as an integer, and a number in
 * quotes is a string.  An error reads "section.key: expected ..., got ..." and leaves the field as
 * it was. */
bool config_value_set(struct Config *config, const struct ConfigKey *key,
                      const struct DocEntry *value, struct Error *err);

/* On one line; config_value_set reads it back to the same bits. */
void config_value_print(const struct Config *config, const struct ConfigKey *key, FILE *out);

/* Frees the strings of the field, if it holds any. */
void config_value_free(struct Config *config, const struct ConfigKey *key);

#endif
