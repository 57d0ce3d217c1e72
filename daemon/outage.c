#include "daemon/outage.h"

#include <stdio.h>
#include <string.h>

#include "daemon/event.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "daemon/news.h"
#include "lib/util/clock.h"
#include "lib/util/units.h"

static int on_dead_timeout(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct device *d = userdata;

	d->dead_timer = sd_event_source_disable_unref(d->dead_timer);
	device_event(d, EV_DEAD_TIMEOUT, NULL);
	return 0;
}

static void time_out(struct device *d, uint64_t passed_usec)
{
	uint64_t left = usec_sub(d->keys.dead_timeout_usec, passed_usec);
	int r = 0;

	d->dead_timer = sd_event_source_disable_unref(d->dead_timer);
	if (left != USEC_INFINITY)
		r = sd_event_add_time_relative(d->manager->event, &d->dead_timer,
					       CLOCK_MONOTONIC, left, USEC_PER_MSEC,
					       on_dead_timeout, d);
	if (r < 0)
		device_log(d, LOG_ERR, "cannot time the outage: %s", strerror(-r));
}

void outage_begin(struct device *d, const char *reason)
{
	struct outages *o = &d->outages;

	o->count++;
	o->began_usec = now_usec();
	o->last_start_real_usec = clock_usec(CLOCK_REALTIME);
	o->last_usec = 0;
	snprintf(o->reason, sizeof(o->reason), "%s", reason);
	time_out(d, 0);
}

void outage_resume(struct device *d)
{
	time_out(d, usec_sub(now_usec(), d->outages.began_usec));
}

void outage_end(struct device *d)
{
	struct outages *o = &d->outages;
	char text[FORMAT_MAX];

	d->dead_timer = sd_event_source_disable_unref(d->dead_timer);
	if (!o->began_usec)
		return;
	o->last_usec = now_usec() - o->began_usec;
	o->total_usec += o->last_usec;
	o->began_usec = 0;
	news_tell(d, NEWS_RECONNECTED, "reconnected after %s", format_usec(text, o->last_usec));
}

uint64_t outage_total(const struct device *d)
{
	const struct outages *o = &d->outages;

	return o->total_usec + (o->began_usec ? now_usec() - o->began_usec : 0);
}
