/* What happens to a device, and the table that says what comes of it. */
#pragma once

#include "daemon/device.h"

struct event_detail {
	struct link *link;		/* EV_SOCKET, EV_FAILED, EV_LINK_DEAD; else NULL */
	enum connect_failure failure;	/* EV_FAILED */
	enum kernel_call_kind call;	/* EV_KERNEL_DONE, EV_KERNEL_FAILED */
	int error;			/* EV_KERNEL_FAILED: -errno */
	const char *text;		/* why, for EV_FAILED, EV_LOST, EV_LINK_DEAD */
};

/* Handle one event: run the action of [state][event], enter the state that it returns.
 * Frees the device when that is STATE_GONE. */
void device_event(struct device *d, enum device_event event,
		  const struct event_detail *detail);
