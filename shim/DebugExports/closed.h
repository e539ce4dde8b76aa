// closed.h: what others than closed.c ask of streams that were closed.
#ifndef KEG_CLOSED_H
#define KEG_CLOSED_H

#include <stdbool.h>

#include "debug.h"

/// Whether a stream or directory is a freed block: then it is reported, and errno is EBADF.
extern bool keg_closed(const void *handle) KEG_DEBUG_HIDDEN;
/// Whether the C library is about to end the process because of a stream it does not know.
extern bool keg_is_bad_stream(void) KEG_DEBUG_HIDDEN;

#endif
