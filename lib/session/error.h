/* The last error of each thread: what nbd_get_error and nbd_get_errno return. */
#pragma once

#include "lib/util/macro.h"

/* The longest text, its end cut off beyond that. */
#define ERROR_TEXT_MAX 1024

/* Record `CALL: message`, with `: strerror` unless ERRNUM is 0 (not known).  Returns -1. */
_printf_(3, 4) int error_set(const char *call, int errnum, const char *format, ...);

/* Of this thread; NULL and 0 when there was none.  Valid until its next error. */
const char *error_text(void);
int error_errno(void);
