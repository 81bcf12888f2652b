/* Decodes one frame ahead: the wanted time lies between the current frame and the following one,
 * and the nearer of the two is given. */
#include "data/video_reader.h"

#include <errno.h>
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/display.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "data/video_frame.h"

static const char formats[] =
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,ogg,nut,gif,"
    "ivf,m4v,asf";
enum { MAX_PIXELS = 64 << 20 };     /* of a stored frame */
static const double max_gap = 10.0; /* seconds between two frames; more is a damaged time stamp */

struct VideoReader {
    char *path;
    AVFormatContext *format;
    AVCodecContext *codec;
    AVPacket *packet;
    AVFrame *current, *following;        /* decoded; the wanted time is about or between theirs */
    double current_time, following_time; /* seconds */
    bool has_current, has_following, draining;
    double first_time, fps;
    double interval; /* seconds between the last two frames; at first, what the file promises */
    int64_t n_given;
    int stream;
    struct VideoScaler scaler;
};

static bool av_error(struct Error *err, const char *path, const char *what, int code) {
    char reason[AV_ERROR_MAX_STRING_SIZE] = "";
    av_strerror(code, reason, sizeof reason);
    return error_set(err, "'%s': %s: %s", path, what, reason);
}

static bool open_container(struct VideoReader *reader, struct Error *err) {
    struct stat status;
    if (stat(reader->path, &status) != 0)
        return error_set(err, "cannot open '%s': %s", reader->path, strerror(errno));
    if (!S_ISREG(status.st_mode)) return error_set(err, "'%s' is not a file", reader->path);
    AVDictionary *options = NULL;
    av_dict_set(&options, "protocol_whitelist", "file", 0);
    av_dict_set(&options, "format_whitelist", formats, 0);
    char *url = xprintf("file:%s", reader->path);
    int code = avformat_open_input(&reader->format, url, NULL, &options);
    free(url);
    av_dict_free(&options);
    if (code < 0) return av_error(err, reader->path, "cannot be read as a video", code);
    code = avformat_find_stream_info(reader->format, NULL);
    return code >= 0 || av_error(err, reader->path, "has no readable stream", code);
}

/* Quarter turns clockwise that a player applies. */
static int quarter_turns(AVStream *stream) {
    const int32_t *matrix =
        (const int32_t *)av_stream_get_side_data(stream, AV_PKT_DATA_DISPLAYMATRIX, NULL);
    double counterclockwise = matrix ? av_display_rotation_get(matrix) : 0.0;
    if (isnan(counterclockwise)) return 0;
    return (((int)lround(-counterclockwise / 90.0)) % 4 + 4) % 4;
}

static bool open_decoder(struct VideoReader *reader, struct Error *err) {
    const AVCodec *decoder = NULL;
    int code = av_find_best_stream(reader->format, AVMEDIA_TYPE_VIDEO, -1, -1, &decoder, 0);
    if (code < 0) return av_error(err, reader->path, "has no video that can be decoded", code);
    reader->stream = code;
    AVStream *stream = reader->format->streams[code];
    for (unsigned i = 0; i < reader->format->nb_streams; i++)
        if (reader->format->streams[i] != stream)
            reader->format->streams[i]->discard = AVDISCARD_ALL;
    reader->codec = avcodec_alloc_context3(decoder);
    TMD_CHECK(reader->codec, "libavcodec gave no context");
    code = avcodec_parameters_to_context(reader->codec, stream->codecpar);
    reader->codec->max_pixels = MAX_PIXELS;
    reader->codec->pkt_timebase = stream->time_base;
    reader->codec->thread_count = 0; /* as many as the machine has */
    if (code >= 0) code = avcodec_open2(reader->codec, decoder, NULL);
    if (code < 0) return av_error(err, reader->path, "cannot be decoded", code);
    double rate = av_q2d(stream->avg_frame_rate);
    reader->interval = isfinite(rate) && rate > 0.1 ? 1.0 / rate : 1.0 / reader->fps;
    reader->scaler.quarter_turns = quarter_turns(stream);
    return true;
}

/* Feeds the decoder its next packet, or the end of the file. */
static bool feed_decoder(struct VideoReader *reader, struct Error *err) {
    int code = av_read_frame(reader->format, reader->packet);
    if (code == AVERROR_EOF) {
        reader->draining = true;
        avcodec_send_packet(reader->codec, NULL);
        return true;
    }
    if (code < 0) return av_error(err, reader->path, "is damaged", code);
    if (reader->packet->stream_index == reader->stream)
        code = avcodec_send_packet(reader->codec, reader->packet);
    av_packet_unref(reader->packet);
    return code >= 0 || av_error(err, reader->path, "cannot be decoded", code);
}

/* Decodes one frame into reader->following; has_following says whether there was one. */
static bool decode_following(struct VideoReader *reader, struct Error *err) {
    int code;
    reader->has_following = false;
    while ((code = avcodec_receive_frame(reader->codec, reader->following)) == AVERROR(EAGAIN)) {
        if (reader->draining) return error_set(err, "'%s' ends within a frame", reader->path);
        if (!feed_decoder(reader, err)) return false;
    }
    if (code == AVERROR_EOF) return true;
    if (code < 0) return av_error(err, reader->path, "cannot be decoded", code);
    const AVStream *stream = reader->format->streams[reader->stream];
    int64_t stamp = reader->following->best_effort_timestamp;
    double expected = reader->has_current ? reader->current_time + reader->interval : 0.0;
    double time = stamp == AV_NOPTS_VALUE ? expected : (double)stamp * av_q2d(stream->time_base);
    if (reader->has_current && !(fabs(time - reader->current_time) <= max_gap))
        return error_set(err, "'%s': time stamps jump from %g to %g seconds", reader->path,
                         reader->current_time, time);
    reader->following_time = time;
    reader->has_following = true;
    return true;
}

/* The frame that follows becomes the current one. */
static bool advance(struct VideoReader *reader, struct Error *err) {
    AVFrame *old = reader->current;
    if (reader->has_current && reader->following_time > reader->current_time)
        reader->interval = reader->following_time - reader->current_time;
    reader->current = reader->following;
    reader->current_time = reader->following_time;
    reader->has_current = reader->has_following;
    reader->following = old;
    av_frame_unref(reader->following);
    return decode_following(reader, err);
}

struct VideoReader *video_reader_open(const char *path, int width, int height, double fps,
                                      struct Error *err) {
    av_log_set_level(AV_LOG_QUIET); /* errors come back as codes */
    struct VideoReader *reader = xcalloc(sizeof *reader);
    reader->path = xstrdup(path);
    reader->fps = fps;
    reader->scaler.width = width;
    reader->scaler.height = height;
    reader->packet = av_packet_alloc();
    reader->current = av_frame_alloc();
    reader->following = av_frame_alloc();
    TMD_CHECK(reader->packet && reader->current && reader->following, "out of memory");
    if (open_container(reader, err) && open_decoder(reader, err) && decode_following(reader, err) &&
        advance(reader, err)) {
        reader->first_time = reader->current_time;
        if (reader->has_current) return reader;
        error_set(err, "'%s' has no frames", path);
    }
    video_reader_close(reader);
    return NULL;
}

bool video_reader_next(struct VideoReader *reader, uint8_t *rgb, bool *end, struct Error *err) {
    const double tie = 1e-6; /* seconds that rounding may add */
    double wanted = reader->first_time + (double)reader->n_given / reader->fps;
    while (reader->has_following &&
           fabs(reader->following_time - wanted) < fabs(reader->current_time - wanted) - tie)
        if (!advance(reader, err)) return false;
    *end = !reader->has_following && wanted > reader->current_time + reader->interval -
                                                  0.01 / reader->fps; /* rounding again */
    if (*end) return true;
    AVStream *stream = reader->format->streams[reader->stream];
    double aspect = av_q2d(av_guess_sample_aspect_ratio(reader->format, stream, reader->current));
    if (!(aspect > 0.1 && aspect < 10.0)) aspect = 1.0; /* unknown or absurd */
    if (!video_scaler_apply(&reader->scaler, reader->current, aspect, rgb, err))
        return error_prefix(err, "'%s'", reader->path);
    reader->n_given++;
    return true;
}

void video_reader_close(struct VideoReader *reader) {
    if (!reader) return;
    video_scaler_free(&reader->scaler);
    av_frame_free(&reader->current);
    av_frame_free(&reader->following);
    av_packet_free(&reader->packet);
    avcodec_free_context(&reader->codec);
    avformat_close_input(&reader->format);
    free(reader->path);
    free(reader);
}
