/* The two published sizes of Wan2.1, for tests. */
#ifndef TMD_TESTS_WAN_SIZES_H
#define TMD_TESTS_WAN_SIZES_H

#include "model/model_config.h"

extern const struct ModelConfig wan_1_3b, wan_14b;

#endif
