/* One function for each object of the format. */
#include "train/plan_sweep_json.h"

#include <stdlib.h>
#include <string.h>

static json_t *point_json(const struct SweepPoint *p) {
    json_t *root = json_pack("{s:i, s:I, s:s?}", "gpus", p->n_gpus, "global_batch",
                             (json_int_t)p->global_batch, "why_not", p->why_not);
    if (p->why_not) return root;
    const struct {
        const char *name;
        double value;
    } numbers[] = {{"memory_bytes", p->memory_bytes},
                   {"seconds", p->seconds},
                   {"exposed_seconds", p->exposed_seconds},
                   {"slowest_seconds", p->slowest_seconds},
                   {"update_seconds", p->update_seconds},
                   {"pass_seconds", p->pass_seconds},
                   {"samples_per_second", sweep_samples_per_second(p)},
                   {"mfu", p->mfu},
                   {"run_seconds", p->run_seconds},
                   {"gpu_hours", sweep_gpu_hours(p)}};
    json_object_set_new(root, "fits", json_boolean(p->fits));
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        json_object_set_new(root, numbers[i].name, json_real(numbers[i].value));
    json_object_set_new(root, "efficiency",
                        p->efficiency > 0.0 ? json_real(p->efficiency) : json_null());
    return root;
}

static json_t *keys_json(const struct SweepKeys *keys, int combination) {
    json_t *root = json_object();
    for (int k = 0; k < keys->n_keys; k++) {
        const char *assignment = sweep_assignment(keys, combination, k);
        const char *equals = strchr(assignment, '=');
        char *key = xprintf("%.*s", (int)(equals - assignment), assignment);
        json_object_set_new(root, key, json_string(equals + 1));
        free(key);
    }
    return root;
}

/* The number of GPUs of point i, which may be -1: none. */
static json_t *gpus_json(const struct SweepCurve *curve, int i) {
    return i < 0 ? json_null() : json_integer(curve->points[i].n_gpus);
}

static json_t *curve_json(const struct Sweep *sweep, int i) {
    const struct SweepCurve *curve = &sweep->curves[i];
    json_t *points = json_array();
    for (int k = 0; k < curve->n_points; k++)
        json_array_append_new(points, point_json(&curve->points[k]));
    char *verdict = sweep_verdict(curve, sweep->machine);
    json_t *root =
        json_pack("{s:s, s:o, s:o, s:o, s:s, s:o}", "name", curve->name, "keys",
                  keys_json(sweep->keys, i), "scales_from", gpus_json(curve, curve->first),
                  "scales_to", gpus_json(curve, curve->last), "verdict", verdict, "points", points);
    free(verdict);
    return root;
}

json_t *sweep_json(const struct Sweep *sweep) {
    json_t *curves = json_array();
    for (int i = 0; i < sweep->keys->n_combinations; i++)
        json_array_append_new(curves, curve_json(sweep, i));
    json_t *root = json_pack("{s:s, s:s, s:s, s:s, s:f, s:o}", "config", sweep->path, "gpu",
                             sweep->machine->name, "network", sweep->network->name, "scale",
                             sweep_scale_name(sweep->scale), "memory_capacity",
                             sweep->machine->memory_bytes, "combinations", curves);
    TMD_CHECK(root, "out of memory, or a path that is no UTF-8: %s", sweep->path);
    return root;
}
