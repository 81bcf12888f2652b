/* tmd config CONFIG [section.key=value ...]: checks a configuration and prints it with every
 * default, base and override resolved.  tmd config --help-keys: the reference page of the keys. */
#ifndef TMD_CMD_CONFIG_H
#define TMD_CMD_CONFIG_H

/* argv[0] is the name of the subcommand.  Returns the exit code; errors are printed. */
int cmd_config(int argc, char **argv);

#endif
