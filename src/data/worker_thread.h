/* Starting threads that work in parallel with the main one. */
#ifndef TMD_DATA_WORKER_THREAD_H
#define TMD_DATA_WORKER_THREAD_H

#include <pthread.h>
#include <stdbool.h>

/* pthread_create, with all signals blocked in the new thread: they are the main thread's business.
 */
bool worker_thread_start(pthread_t *thread, void *(*run)(void *context), void *context);

#endif
