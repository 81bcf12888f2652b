/* Compares what a dataset says of itself with the configuration. */
#include "train/data_fit.h"

struct VideoShape data_video_shape(const struct DatasetInfo *info) {
    return (struct VideoShape){info->frames, info->height, info->width};
}

bool data_fits(const struct Config *config, const struct Dataset *dataset, const char *path,
               struct Error *err) {
    const struct DatasetInfo *info = dataset_info(dataset);
    const struct ModelConfig *m = &config->model;
    struct VideoShape video = data_video_shape(info);
    if (info->channels != m->in_dim)
        return error_set(err, "%s: samples have %lld channels, model.in_dim is %lld", path,
                         (long long)info->channels, (long long)m->in_dim);
    if (info->text_dim != m->text_dim)
        return error_set(err, "%s: text rows have %lld elements, model.text_dim is %lld", path,
                         (long long)info->text_dim, (long long)m->text_dim);
    if (info->max_text_rows > m->text_len)
        return error_set(err, "%s: a prompt has %lld text rows, model.text_len is %lld", path,
                         (long long)info->max_text_rows, (long long)m->text_len);
    return config_check_video(config, &video, err) || error_prefix(err, "%s", path);
}
