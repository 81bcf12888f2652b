/* What a build without libav has in the place of `tmd data video`. */
#include "data/cmd_data_video.h"
#include "error.h"

int cmd_data_video(int argc, char **argv) {
    struct Error err;
    (void)argc, (void)argv;
    error_set(&err, "data video: this program was built without video files: expected a build with "
                    "cmake -DTMD_VIDEO=ON");
    return error_report(&err);
}
