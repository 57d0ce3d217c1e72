#include "daemon/watchdog.h"

#include <systemd/sd-daemon.h>

#include "daemon/log.h"
#include "daemon/manager.h"
#include "daemon/notify.h"
#include "lib/util/clock.h"

#define AGAIN_USEC USEC_PER_SEC		/* when it could not be told */

/* Thrice in the time that the service manager gives. */
static int feed(sd_event_source *s, uint64_t usec, void *userdata)
{
	const struct manager *m = userdata;
	uint64_t next = m->watchdog_usec / 3;

	if (notify_send(m->notify, "WATCHDOG=1") < 0)
		next = MIN(next, AGAIN_USEC);
	(void)sd_event_source_set_time_relative(s, next);
	(void)sd_event_source_set_enabled(s, SD_EVENT_ONESHOT);
	return 0;
}

void watchdog_start(struct manager *m)
{
	m->watchdog = sd_event_source_disable_unref(m->watchdog);
	if (sd_watchdog_enabled(0, &m->watchdog_usec) > 0 &&
	    sd_event_add_time_relative(m->event, &m->watchdog, CLOCK_MONOTONIC, 0,
				       m->watchdog_usec / 20, feed, m) < 0)
		log_warning("cannot feed systemd's watchdog");
}
