#include "daemon/tls_watch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "daemon/device.h"
#include "daemon/ktls.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "daemon/news.h"
#include "lib/util/clock.h"
#include "lib/util/units.h"

/* Records by one key of AES-GCM.  A server with GnuTLS changes its key after 16,777,213 of
 * them, which breaks the connection in the midst of requests; RFC 8446, 5.5, allows 2^24.5.
 * A new connection at a time of our own is the cheaper one. */
#define RECORDS_MAX		UINT64_C(12582912)
#define RECORDS_VARIABLE	"NBDD_TLS_RECORDS"

#define PAUSE_FIRST_USEC	(2 * USEC_PER_SEC)
#define PAUSE_MIN_USEC		(250 * USEC_PER_MSEC)
#define PAUSE_MAX_USEC		USEC_PER_MINUTE
#define DAY_USEC		(24 * 60 * USEC_PER_MINUTE)
#define DAY_SEC			86400

int64_t tls_days_left(int64_t expires)
{
	int64_t left = expires - (int64_t)(clock_usec(CLOCK_REALTIME) / USEC_PER_SEC);

	return left >= 0 ? left / DAY_SEC : -1 - (-left - 1) / DAY_SEC;
}

bool tls_certificate_ends(const struct link *l, bool own, char *dst, size_t size)
{
	int64_t when = own ? l->tls.own_expires : l->tls.peer_expires;
	int64_t days = tls_days_left(when);
	time_t t = (time_t)when;
	char date[32] = "?";
	struct tm tm;

	if (!when || days >= TLS_CERTIFICATE_SOON_DAYS)
		return false;
	if (gmtime_r(&t, &tm))
		strftime(date, sizeof(date), "%F %T UTC", &tm);
	snprintf(dst, size, "%s certificate%s%s%s %s on %s", own ? "our" : "the server's",
		 own ? "" : " (", own ? "" : l->tls.peer, own ? "" : ")",
		 days < 0 ? "has ended" : "ends", date);
	return true;
}

uint64_t tls_watch_pause(uint64_t records, uint64_t limit, uint64_t done, uint64_t usec)
{
	uint64_t left = limit > records ? limit - records : 0, pause;

	if (!done)
		return PAUSE_MAX_USEC;
	/* Half of what is left at this pace, for it may grow. */
	if (__builtin_mul_overflow(left, usec, &pause))
		return PAUSE_MAX_USEC;
	pause = MIN(pause / done / 2, PAUSE_MAX_USEC);
	return MAX(pause, PAUSE_MIN_USEC);
}

uint64_t tls_records_max(void)
{
	const char *text = secure_getenv(RECORDS_VARIABLE);
	uint64_t n = text ? strtoull(text, NULL, 10) : 0;

	return n ? n : RECORDS_MAX;
}

/* When to look at it again. */
static uint64_t look_at_key(struct link *l)
{
	uint64_t records, limit = tls_records_max(), now = now_usec(), done, since;

	if (!l->tls.in_kernel || ktls_records(l->fd, &records) < 0 || !records)
		return PAUSE_MAX_USEC;
	if (records >= limit) {
		device_log(l->device, LOG_NOTICE, "%llu records with one TLS key: connecting "
			   "anew for another", (unsigned long long)records);
		link_cut(l, "its TLS key was used for long enough");
		return PAUSE_MAX_USEC;
	}
	done = records - l->tls_records;
	since = now - l->tls_looked_usec;
	l->tls_records = records;
	l->tls_looked_usec = now;
	return tls_watch_pause(records, limit, done, since);
}

/* Told once a day, and when they are others than those told of. */
static void look_at_certificates(struct device *d, const struct link *l)
{
	int64_t both = l->tls.peer_expires + l->tls.own_expires;
	uint64_t now = now_usec();
	char text[DEVICE_REASON_MAX];

	if (both == d->tls_told && now - d->tls_told_usec < DAY_USEC)
		return;
	d->tls_told = both;
	d->tls_told_usec = now;
	for (int own = 0; own < 2; own++)
		if (tls_certificate_ends(l, own, text, sizeof(text)))
			news_tell(d, NEWS_CERTIFICATE, "%s", text);
}

static int on_look(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct device *d = userdata;
	uint64_t pause = PAUSE_MAX_USEC;
	bool any = false;
	int r;

	for (size_t i = 0; i < d->n_links; i++) {
		struct link *l = &d->links[i];
		uint64_t p;

		if (l->state != LINK_ALIVE || !l->tls.version)
			continue;
		if (!any)
			look_at_certificates(d, l);
		any = true;
		p = look_at_key(l);
		pause = MIN(pause, p);
	}
	/* Without a link, the next one that is alive begins anew. */
	r = any ? sd_event_source_set_time_relative(d->tls_timer, pause) : 0;
	if (any && r >= 0)
		r = sd_event_source_set_enabled(d->tls_timer, SD_EVENT_ONESHOT);
	if (!any)
		d->tls_timer = sd_event_source_disable_unref(d->tls_timer);
	return r;
}

void tls_watch(struct device *d)
{
	int r;

	for (size_t i = 0; i < d->n_links; i++) {
		struct link *l = &d->links[i];

		if (l->state != LINK_ALIVE || !l->tls.version || l->tls_looked_usec)
			continue;
		l->tls_looked_usec = now_usec();
		l->tls_records = 0;
		d->tls_timer = sd_event_source_disable_unref(d->tls_timer);
	}
	if (d->tls_timer || !device_links_alive(d))
		return;
	r = sd_event_add_time_relative(d->manager->event, &d->tls_timer, CLOCK_MONOTONIC,
				       PAUSE_FIRST_USEC, PAUSE_MIN_USEC, on_look, d);
	if (r < 0)
		device_log(d, LOG_ERR, "cannot watch the TLS keys: %s", strerror(-r));
}
