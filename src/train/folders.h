/* Folders that a run writes into. */
#ifndef TMD_FOLDERS_H
#define TMD_FOLDERS_H

#include "error.h"

/* Makes the folder and those above it; fine if it is there. */
bool folder_make(const char *path, struct Error *err);

#endif
