/* `tmd data video --out FILE --text CAPTIONS VIDEO...`: clips of video files as a dataset. */
#ifndef TMD_DATA_CMD_DATA_VIDEO_H
#define TMD_DATA_CMD_DATA_VIDEO_H

/* argv[0] is "video".  Returns an enum ExitCode. */
int cmd_data_video(int argc, char **argv);

#endif
