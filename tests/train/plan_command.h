/* `tmd plan` as a user runs it, in a temporary folder (config_fixture.h).  TMD_CONFIGS_DIR is the
 * folder configs/. */
#ifndef TMD_PLAN_COMMAND_H
#define TMD_PLAN_COMMAND_H

#define GPU_TABLE TMD_CONFIGS_DIR "/machines/gpu/h100.yaml"
#define NETWORK_TABLE TMD_CONFIGS_DIR "/machines/network/infiniband.yaml"

/* Runs it with n words behind "plan", standard output and error into the files "out" and "error" of
 * the folder; returns its exit code. */
int run_plan(void **state, int n, const char *const *words);

/* A file of the folder must contain a part. */
void expect_in_file(void **state, const char *name, const char *part);

#endif
