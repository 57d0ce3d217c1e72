/* The life of a device, as one table. */
#include "daemon/transitions.h"

#include "daemon/kcall.h"
#include "daemon/link.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "daemon/save.h"
#include "daemon/status.h"

/* What happens in each of these states is the same; which one it is depends on the links
 * and on what the last attempt met. */
#define WITH_DEAD_LINKS				\
	[EV_START] = link_start,		\
	[EV_SOCKET] = link_socket,		\
	[EV_FAILED] = link_failed,		\
	[EV_LINK_DEAD] = link_dead,		\
	[EV_KERNEL_DONE] = link_kernel_done,	\
	[EV_KERNEL_FAILED] = link_kernel_failed, \
	[EV_DETACH] = detach_begin,		\
	[EV_LOST] = device_lost,		\
	MOVES

/* A device with or without links can be prepared for another server. */
#define MOVES					\
	[EV_MOVE] = move_begin,			\
	[EV_CANDIDATE] = move_candidate,	\
	[EV_CANDIDATE_FAILED] = move_candidate_failed, \
	[EV_MOVE_SWITCH] = move_switch

/* NULL: the event says nothing in that state; a socket that comes then is closed. */
static const device_action actions[N_STATES][N_EVENTS] = {
	[STATE_CONNECTING] = {
		[EV_START] = attach_start,
		[EV_SOCKET] = attach_socket,
		[EV_FAILED] = attach_failed,
		[EV_DETACH] = attach_abandon,
	},
	[STATE_ATTACHING] = {
		[EV_GO_ON] = attach_again,
		[EV_KERNEL_DONE] = attach_kernel_done,
		[EV_KERNEL_FAILED] = attach_kernel_failed,
		[EV_DETACH] = detach_later,
	},
	[STATE_CONNECTED] = {
		[EV_LINK_DEAD] = link_dead,
		[EV_KERNEL_DONE] = link_kernel_done,
		[EV_KERNEL_FAILED] = link_kernel_failed,
		[EV_DETACH] = detach_begin,
		[EV_LOST] = device_lost,
		MOVES
	},
	[STATE_DEGRADED] = { WITH_DEAD_LINKS },
	[STATE_RECONNECTING] = { WITH_DEAD_LINKS, [EV_DEAD_TIMEOUT] = link_dead_timeout },
	[STATE_REFUSED] = { WITH_DEAD_LINKS, [EV_DEAD_TIMEOUT] = link_dead_timeout },
	[STATE_FAILING] = { WITH_DEAD_LINKS },
	[STATE_MOVING] = {
		[EV_LINK_DEAD] = move_link_dead,
		[EV_KERNEL_DONE] = move_kernel_done,
		[EV_KERNEL_FAILED] = move_kernel_failed,
		[EV_MOVE_CHECKED] = move_checked,
		[EV_DETACH] = detach_later,
		[EV_LOST] = device_lost,
	},
	[STATE_DETACHING] = {
		[EV_GO_ON] = detach_go_on,
		[EV_DETACH] = detach_hurry,
		[EV_LINK_DEAD] = detach_link_dead,
		[EV_KERNEL_DONE] = detach_kernel_done,
		[EV_KERNEL_FAILED] = detach_kernel_failed,
	},
};

void device_event(struct device *d, enum device_event event,
		  const struct event_detail *detail)
{
	static const struct event_detail none;
	const struct event_detail *e = detail ? detail : &none;
	device_action action = actions[d->state][event];
	struct manager *m = d->manager;
	enum device_state old = d->state, new;

	if (!action) {
		if (event == EV_SOCKET || event == EV_CANDIDATE)
			link_reset(e->link);
		return;
	}
	new = action(d, e);
	if (new != old)
		device_log(d, LOG_DEBUG, "%s -> %s", device_state_name(old),
			   device_state_name(new));
	d->state = new;
	save_device(d);
	status_changed(m);
	if (new == STATE_GONE) {
		manager_remove(m, d);
		device_free(d);
	}
}
