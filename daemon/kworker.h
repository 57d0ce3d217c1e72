/* Calls into the kernel's nbd driver, made on a thread of their own.
 *
 * A generic netlink call blocks in the kernel: the driver sends disconnects, takes locks
 * and freezes queues in the caller's thread, and the kernel lets one such call of any
 * family run at a time.  So there is one thread, in order of asking, and a call that hangs
 * stops neither the event loop nor anything that the kernel would not stop itself. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "netlink/nbdk.h"

#define KWORKER_STACK (128 * 1024)	/* bytes; locked in memory like the rest */

struct kworker;

struct kjob {
	/* On the thread; touches nothing but the job and the kernel.  0 or -errno. */
	int (*run)(struct kjob *job, struct nbdk *k, const struct nbdk_ops *ops);
	/* On the event loop, with what run returned. */
	void (*done)(struct kjob *job, int result);
	struct kjob *next;		/* the worker's */
	int result;
};

/* With netlink socket GENL (taken) of an earlier worker, when that is one, or with a new one
 * for -1. */
int kworker_new(sd_event *event, const struct nbdk_ops *ops, int genl, struct kworker **ret);
/* Stops the thread unless it hangs in the kernel, which is then left behind. */
void kworker_free(struct kworker *w);

/* Queue JOB; its memory stays the caller's until done was called. */
void kworker_submit(struct kworker *w, struct kjob *job);

/* No call is under way, none waits, and the ends of all have been handled. */
bool kworker_idle(struct kworker *w);
/* Its netlink socket. */
int kworker_fd(const struct kworker *w);
/* Since when the call under way has been running, 0 when none is (monotonic usec). */
uint64_t kworker_busy_since(struct kworker *w);
