/* When a device tries its servers again. */
#pragma once

#include "daemon/device.h"

/* An attempt at a link has failed: the next server at once, or a pause, whose end is an
 * EV_START.  A permanent failure is asked again slowly. */
void retry_after_failure(struct device *d, enum connect_failure failure);
/* A connection is lost that was alive since ALIVE_USEC (monotonic; 0: for long): an EV_START at
 * once, unless another is planned, or after a pause, and with the next server, when one
 * connection after the other does not last. */
void retry_after_loss(struct device *d, uint64_t alive_usec);
/* EV_START from the event loop, at once. */
void retry_now(struct device *d);
/* Nothing is tried any more, whatever was planned. */
void retry_stop(struct device *d);
/* A connector is free: an EV_START for those that wait for one, in turn. */
void retry_queued(struct manager *m);
/* The network has changed: an attempt that began before it is given up, and a pause
 * ended, but not more than a few times a second. */
void retry_hurry(struct device *d);
/* SERVER has answered, or (WELL) done so as it should: who waits for it need not wait longer,
 * unless it had refused him; if not WELL, unless it had answered him in the same way. */
void retry_server_answers(struct manager *m, const struct server *server, bool well);
/* All is well: the next failure begins a new series. */
void retry_reset(struct device *d);
/* Learn the addresses of the servers; ends in EV_START or EV_FAILED.  In the background
 * when the device has addresses already. */
int retry_resolve(struct device *d);
