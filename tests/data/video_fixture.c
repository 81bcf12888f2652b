/* Paints frames whose colours tell time and place, and encodes them with libavcodec. */
#include "video_fixture.h"

#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/display.h>

#include "error.h"

enum { CELLS = 4 };

void video_fixture_colour(int t, int column, int row, uint8_t rgb[3]) {
    rgb[0] = (uint8_t)(t * 7);
    rgb[1] = (uint8_t)(20 + 60 * column);
    rgb[2] = (uint8_t)(20 + 60 * row);
}

static void paint(AVFrame *frame, int t) {
    for (int y = 0; y < frame->height; y++)
        for (int x = 0; x < frame->width; x++) {
            uint8_t rgb[3], *bgr0 = frame->data[0] + y * frame->linesize[0] + 4 * x;
            video_fixture_colour(t, x * CELLS / frame->width, y * CELLS / frame->height, rgb);
            bgr0[0] = rgb[2];
            bgr0[1] = rgb[1];
            bgr0[2] = rgb[0];
            bgr0[3] = 0;
        }
}

static void write_packets(AVFormatContext *format, AVCodecContext *codec, AVFrame *frame) {
    AVPacket *packet = av_packet_alloc();
    TMD_CHECK(packet && avcodec_send_frame(codec, frame) >= 0, "the frame is not encoded");
    while (avcodec_receive_packet(codec, packet) >= 0) {
        av_packet_rescale_ts(packet, codec->time_base, format->streams[0]->time_base);
        TMD_CHECK(av_interleaved_write_frame(format, packet) >= 0, "the packet is not written");
    }
    av_packet_free(&packet);
}

static void turn(AVStream *stream, int quarter_turns) {
    int32_t *matrix =
        (int32_t *)av_stream_new_side_data(stream, AV_PKT_DATA_DISPLAYMATRIX, 9 * sizeof(int32_t));
    TMD_CHECK(matrix, "no side data");
    av_display_rotation_set(matrix, 90.0 * quarter_turns); /* this one turns clockwise */
}

static AVCodecContext *open_encoder(const struct VideoFixture *fixture) {
    AVCodecContext *codec = avcodec_alloc_context3(avcodec_find_encoder(AV_CODEC_ID_FFV1));
    TMD_CHECK(codec, "no FFV1 encoder");
    codec->width = fixture->width;
    codec->height = fixture->height;
    codec->pix_fmt = AV_PIX_FMT_BGR0;
    codec->time_base = (AVRational){1, fixture->fps};
    codec->framerate = (AVRational){fixture->fps, 1};
    TMD_CHECK(avcodec_open2(codec, NULL, NULL) >= 0, "the encoder does not open");
    return codec;
}

void video_fixture_write(const char *path, const struct VideoFixture *fixture) {
    av_log_set_level(AV_LOG_QUIET);
    AVCodecContext *codec = open_encoder(fixture);
    AVFormatContext *format = NULL;
    TMD_CHECK(avformat_alloc_output_context2(&format, NULL, "mov", path) >= 0, "no muxer");
    AVStream *stream = avformat_new_stream(format, NULL);
    stream->time_base = codec->time_base;
    stream->avg_frame_rate = codec->framerate;
    avcodec_parameters_from_context(stream->codecpar, codec);
    if (fixture->quarter_turns) turn(stream, fixture->quarter_turns);
    TMD_CHECK(avio_open(&format->pb, path, AVIO_FLAG_WRITE) >= 0 &&
                  avformat_write_header(format, NULL) >= 0,
              "cannot write %s", path);
    AVFrame *frame = av_frame_alloc();
    frame->width = codec->width;
    frame->height = codec->height;
    frame->format = codec->pix_fmt;
    TMD_CHECK(av_frame_get_buffer(frame, 0) >= 0, "no frame");
    for (int t = 0; t < fixture->n_frames; t++) {
        TMD_CHECK(av_frame_make_writable(frame) >= 0, "no frame");
        paint(frame, t);
        bool late = fixture->late_by > 0 && t >= fixture->late_from;
        frame->pts = t + (late ? fixture->late_by : 0);
        write_packets(format, codec, frame);
    }
    write_packets(format, codec, NULL);
    TMD_CHECK(av_write_trailer(format) >= 0, "cannot finish %s", path);
    av_frame_free(&frame);
    avcodec_free_context(&codec);
    avio_closep(&format->pb);
    avformat_free_context(format);
}
