#include "daemon/resume.h"

#include <errno.h>
#include <string.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

#include "daemon/device.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "lib/util/clock.h"
#include "lib/util/units.h"

/* A server that has heard nothing for so long may have given the connection up. */
#define LONG_USEC (5 * USEC_PER_SEC)
/* The kernel's times end in the year 2262: a clock that is set to less is never there. */
#define NEVER_SEC (sizeof(time_t) < 8 ? INT32_MAX : (time_t)(INT64_MAX / 1000000000))

/* How long the machine has been suspended since it was started: CLOCK_BOOTTIME counts that,
 * CLOCK_MONOTONIC does not. */
static uint64_t suspended_usec(void)
{
	uint64_t monotonic = now_usec();

	return usec_sub(clock_usec(CLOCK_BOOTTIME), monotonic);
}

/* The kernel cancels the timer when the clock is set, and a resume sets it.  ECANCELED: the
 * clock was set since the last read, and the timer is armed (timerfd_create(2), NOTES). */
static int arm(int fd)
{
	const struct itimerspec never = { .it_value.tv_sec = NEVER_SEC };

	return timerfd_settime(fd, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &never,
			       NULL) < 0 && errno != ECANCELED ? -errno : 0;
}

static void connect_anew(struct manager *m, uint64_t slept_usec)
{
	for (size_t i = 0; i < m->n_devices; i++) {
		struct device *d = m->devices[i];

		if (d->state != STATE_CONNECTED && d->state != STATE_DEGRADED)
			continue;
		if (slept_usec < MAX(d->keys.keepalive_timeout_usec, LONG_USEC))
			continue;
		for (size_t n = 0; n < d->n_links; n++)
			if (d->links[n].state == LINK_ALIVE)
				(void)link_cut(&d->links[n], "the machine was suspended");
	}
	manager_hurry(m, "the machine was suspended");
}

static int on_clock_set(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	struct manager *m = userdata;
	uint64_t expirations, before = m->suspended_usec, slept;
	char text[FORMAT_MAX];
	int r;

	(void)!read(fd, &expirations, sizeof(expirations));	/* ECANCELED */
	/* Armed before the look, so that what comes between them is seen by one of them. */
	r = arm(fd);
	if (r < 0)
		log_error("cannot tell any more when the machine was suspended: %s",
			  strerror(-r));
	m->suspended_usec = suspended_usec();
	slept = usec_sub(m->suspended_usec, before);
	if (slept >= USEC_PER_SEC) {
		log_notice("the machine was suspended for %s", format_usec(text, slept));
		connect_anew(m, slept);
	}
	return 0;
}

int resume_watch(struct manager *m)
{
	int fd = timerfd_create(CLOCK_REALTIME, TFD_NONBLOCK | TFD_CLOEXEC), r;

	if (fd < 0)
		return -errno;
	m->suspended_usec = suspended_usec();
	r = arm(fd);
	if (r >= 0)
		r = sd_event_add_io(m->event, &m->clock, fd, EPOLLIN, on_clock_set, m);
	if (r >= 0)
		r = sd_event_source_set_io_fd_own(m->clock, true);
	else
		close(fd);
	return r;
}
