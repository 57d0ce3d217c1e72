/* The buffer into which replies are received in bulk.  Nothing but a part of a header
 * outlives the call that received it, so one buffer serves all handles of a thread: a
 * handle that is idle holds none, and the buffer stays in the processor's cache. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* Bytes.  Bigger saves system calls at depth, smaller keeps it in the L2 cache. */
#define LOOKAHEAD_SIZE (128 * 1024)

/* Take this thread's buffer of LOOKAHEAD_SIZE, or a new one when it is in use (a callback
 * may work on another handle); NULL when out of memory. */
uint8_t *lookahead_take(void);

/* Give it back. */
void lookahead_give(uint8_t *buffer);
