/* CUDA graphs of regions that come often (run_often of backend.h).
 *
 * What a region does is all in the arguments of its operations: addresses, shapes, flags.  Each
 * time the region is first only listened to: its operations write themselves and their arguments
 * down, byte by byte, and do nothing.  What was written is the region's key, so that no caller has
 * to say what a graph depends on, and none can forget a part of it:
 *
 *     the first time      the operations are done one by one: libraries choose their algorithms,
 *                         which may wait and measure, and kernels are loaded
 *     the second time     they are captured, and the graph is launched
 *     from then on        the graph is launched
 *
 * Arguments in host memory would escape the key, so that operations that have any are refused.  At
 * most CUDA_MAX_REGIONS are known; others, and those for whose graph the device has no memory, are
 * done one by one. */
#ifndef TMD_CUDA_GRAPH_CAPTURE_H
#define TMD_CUDA_GRAPH_CAPTURE_H

#include "kernels/backend.h"

enum { CUDA_MAX_REGIONS = 64 };

struct CudaGraphs;

/* Has `be`, whose table is complete, keep graphs from now on. */
void cuda_graphs_attach(struct Backend *be);
/* Once the device is idle.  NULL: there are none. */
void cuda_graphs_destroy(struct CudaGraphs *graphs);

#endif
