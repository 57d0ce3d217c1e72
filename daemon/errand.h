/* Short work on an attached device that may block: made in a child each.
 *
 * A setting of the queue is not even read while somebody waits for the queue to be frozen,
 * newer kernels freeze it to change one, an open scans partitions, a flush waits for the
 * server; none of that may stop the daemon.  There is one errand at a time in
 * each slot: d->errand, d->tuning, d->claim, the move's. */
#pragma once

#include "daemon/device.h"
#include "daemon/sample.h"

struct errand_result {
	int error;			/* 0 or -errno */
	struct digests digests;		/* errand_digests */
	bool unhurried;			/* errand_hasten: the queue was left as it is */
	bool unused;			/* errand_close: for sure; it was not opened */
};

/* Called once, unless cancelled; its slot is empty by then. */
typedef void (*errand_done_fn)(struct device *d, const struct errand_result *result);

/* 0 or -errno, -EBUSY: one is under way. */
_must_check_ int errand_settings(struct device *d, struct errand **slot, errand_done_fn done);
/* For its DONE: what has failed, or changed meanwhile, is due again. */
void errand_settings_made(struct device *d, const struct errand_result *result);
/* For a device whose queue may not have been set up, adopted or moved: do it now, or soon. */
void errand_settings_due(struct device *d);
/* Read one block past every cache: no error when I/O flows. */
_must_check_ int errand_first_read(struct device *d, struct errand **slot,
				   errand_done_fn done);
/* A flush and such a read; -ENODATA: requests in flight are not counted. */
_must_check_ int errand_before_growing(struct device *d, errand_done_fn done);
/* fsync of the device: what is in the server's cache reaches its disk. */
_must_check_ int errand_flush(struct device *d, errand_done_fn done);
/* For a move: flush the device, then read its samples past every cache. */
_must_check_ int errand_digests(struct device *d, struct errand **slot, errand_done_fn done);
/* For a move: flush it, and for the moment that follows have the kernel look soon for requests
 * whose connection was replaced. */
_must_check_ int errand_hasten(struct device *d, struct errand **slot, errand_done_fn done);
/* Does the block layer count its requests (queue/iostats)?  -ENODATA. */
_must_check_ int errand_counts(struct device *d, struct errand **slot, errand_done_fn done);
/* Has a filesystem, swap or another device claimed it for itself?  -EBUSY. */
_must_check_ int errand_claim(struct device *d, errand_done_fn done);
/* Open and close it: the last close may do what the kernel was asked to.  Not one that nobody
 * has opened yet, which is `unused`. */
_must_check_ int errand_close(struct device *d, errand_done_fn done);

/* NULL is fine.  Returns NULL. */
struct errand *errand_cancel(struct errand *e);
