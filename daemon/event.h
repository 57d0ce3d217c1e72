/* What happens to a device, and the table that says what comes of it. */
#pragma once

#include "daemon/device.h"

enum kernel_call_kind {
	CALL_CONNECT, CALL_RECONNECT, CALL_CONFIGURE, CALL_RESIZE,
	CALL_LET_GO,		/* disconnect at the last close */
	CALL_KEEP,		/* … no longer */
	CALL_DISCONNECT
};

struct event_detail {
	/* EV_SOCKET, EV_FAILED, EV_CANDIDATE…, EV_LINK_DEAD; else NULL */
	struct link *link;
	enum connect_failure failure;	/* EV_FAILED */
	enum kernel_call_kind call;	/* EV_KERNEL_DONE, EV_KERNEL_FAILED */
	int error;			/* EV_KERNEL_FAILED, EV_MOVE_CHECKED: -errno */
	uint64_t size;			/* EV_KERNEL_DONE of a CALL_RESIZE: bytes */
	const char *text;		/* why, for EV_FAILED, EV_LOST, EV_LINK_DEAD */
	const struct digests *digests;	/* EV_CANDIDATE: of the samples asked for */
};

/* Handle one event: run the action of [state][event], enter the state that it returns.
 * Frees the device when that is STATE_GONE. */
void device_event(struct device *d, enum device_event event,
		  const struct event_detail *detail);
