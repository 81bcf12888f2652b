/* A thread that does one piece of work at a time, in parallel with the thread that hands it over.
 *
 * Its use is saving: training continues while a checkpoint is compressed and written.  Work that
 * writes HDF5 files may run in parallel with the loader's thread, which reads others (h5_file.h on
 * threads). */
#ifndef TMD_DATA_BACKGROUND_H
#define TMD_DATA_BACKGROUND_H

#include <stdbool.h>

#include "error.h"

struct Background;

/* False, with a sentence, says that the work failed. */
typedef bool BackgroundWork(void *context, struct Error *err);

/* NULL: no thread could be started. */
struct Background *background_open(struct Error *err);
/* Waits for the work that is under way; its result is lost.  Harmless on NULL. */
void background_close(struct Background *background);

/* Hands over work; `context` must last until background_wait.  The result of earlier work must have
 * been fetched. */
void background_submit(struct Background *background, BackgroundWork *work, void *context);

/* Has all that was handed over been done, so that background_wait would not wait? */
bool background_is_idle(struct Background *background);

/* Waits for the end of the work that was handed over last and gives its result, once; without such
 * work, true at once. */
bool background_wait(struct Background *background, struct Error *err);

#endif
