/* What a device asks of the kernel, as jobs of the worker; one at a time for a device. */
#pragma once

#include "daemon/device.h"

struct kernel_call;

/* Each ends in an EV_KERNEL_DONE or EV_KERNEL_FAILED of the device.  -ENOMEM; -EBUSY: one is
 * under way. */
_must_check_ int kernel_connect(struct device *d);	/* with every READY link */
/* With every READY link; then I/O waits so long without one. */
_must_check_ int kernel_reconnect(struct device *d, uint64_t dead_timeout_usec);
/* How long I/O waits without a link: that of the keys, or longer; and the timeout, if that is
 * due. */
_must_check_ int kernel_configure(struct device *d, uint64_t dead_timeout_usec);
_must_check_ int kernel_resize(struct device *d, uint64_t size);
/* Whether the kernel is to disconnect it at the last close; -EINVAL: it is not connected. */
_must_check_ int kernel_last_close(struct device *d, bool disconnects);
_must_check_ int kernel_disconnect(struct device *d);

/* Is the timeout one of the things that C asks for?  Whether the kernel has it is not known before
 * C ends.  NULL is none. */
bool kernel_call_sets_timeout(const struct kernel_call *c);

/* The device is going away; the call's end will find nobody.  NULL is fine. */
void kernel_call_forget(struct kernel_call *c);
