/* Streams as streams.cpp (queues and events) and graphs.cpp (capture) share them. */
#ifndef TMD_EMULATED_STREAMS_H
#define TMD_EMULATED_STREAMS_H

#include <chrono>
#include <deque>
#include <memory>

#include "device.h"

/* What one piece of work does.  Graphs do it many times, so that running must not use up `arg`. */
struct Deed {
    const char *what;
    void (*run)(void *arg);
    void *arg;
    void (*free_arg)(void *arg); /* or NULL */
};

/* Owned by as many as remember it: a queue once, a graph for all its launches. */
using SharedDeed = std::shared_ptr<const Deed>;
SharedDeed emu_deed(const char *what, void (*run)(void *arg), void *arg,
                    void (*free_arg)(void *arg));

/* One cudaEventRecord: events can be recorded again, but who waits has seen a certain record. */
struct Record {
    cudaStream_t stream;
    bool done;
    std::chrono::steady_clock::time_point time;
};

/* An entry of a queue: one of the three. */
struct Work {
    SharedDeed deed;
    std::shared_ptr<Record> reached;   /* cudaEventRecord */
    std::shared_ptr<Record> waits_for; /* cudaStreamWaitEvent */
};

struct Capture; /* graphs.cpp */

struct CUstream_st {
    int device;
    std::deque<Work> pending;
    std::shared_ptr<Capture> capture; /* between cudaStreamBeginCapture and cudaStreamEndCapture */
};

bool emu_stream_exists(cudaStream_t stream);
/* Ends the program unless the calling thread can give `what` to the stream. */
void emu_require_stream(cudaStream_t stream, const char *what);

/* ---- graphs.cpp */

/* Takes the deed into the graph that the stream is being captured into. */
void emu_capture_take(cudaStream_t stream, SharedDeed deed);

#endif
