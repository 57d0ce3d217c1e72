#include "daemon/news.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "daemon/device.h"
#include "daemon/followers.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "daemon/programs.h"
#include "lib/util/clock.h"

/* The catalog, contrib/systemd/nbdd.catalog, explains each by its id. */
static const struct {
	const char *name, *id;
	int priority;
} kinds[N_NEWS] = {
	[NEWS_ATTACHED] = { "attached", "43238b64dae44fa3aa13a58465021f79", LOG_NOTICE },
	[NEWS_ADOPTED] = { "adopted", "316718c8f703463ab7eb2135660fba58", LOG_NOTICE },
	[NEWS_DEGRADED] = { "degraded", "7287b1149beb4819a784a4c336e9497d", LOG_WARNING },
	[NEWS_OUTAGE] = { "outage", "e595f99585e249f7a60a6e96b595691d", LOG_WARNING },
	[NEWS_RECONNECTED] = { "reconnected", "af75a11943ac4407b5804ebab4ae2941", LOG_NOTICE },
	[NEWS_REFUSED] = { "refused", "0ac772224ac2404bbcb48b22e74d2dfa", LOG_ERR },
	[NEWS_FAILING] = { "failing", "3628812d6aec452586998d615d860784", LOG_ERR },
	[NEWS_MOVED] = { "moved", "1a5b01e25ed343ac82fcc72972db91b6", LOG_NOTICE },
	[NEWS_GROWN] = { "grown", "01e04511b6ae41df9a94ab8b6ad673e7", LOG_NOTICE },
	[NEWS_CERTIFICATE] = { "certificate", "a8efbb48f2694b7c80b5591ad0ba989f", LOG_WARNING },
	[NEWS_DETACHED] = { "detached", "f50bbb643cf04e9ab81679c173215b9e", LOG_NOTICE },
	[NEWS_GONE] = { "gone", "3d932d4e18ec4bb683f4c71e2fb3e79b", LOG_WARNING },
};

const char *news_name(enum news_kind kind)
{
	return kinds[kind].name;
}

static void tell_log(const struct news *n)
{
	const struct log_field fields[] = {
		{ "MESSAGE_ID", kinds[n->kind].id },
		{ "NBDD_EVENT", kinds[n->kind].name },
		{ "NBDD_DEVICE", n->device },
		{ "NBDD_NAME", n->name },
	};

	log_entry(kinds[n->kind].priority, fields, ARRAY_SIZE(fields), "%s: %s", n->name,
		  n->message);
}

void news_tell(struct device *d, enum news_kind kind, const char *format, ...)
{
	struct news n = { .kind = kind, .real_usec = clock_usec(CLOCK_REALTIME) };
	va_list ap;

	if (d->index >= 0)
		snprintf(n.device, sizeof(n.device), "/dev/nbd%d", d->index);
	snprintf(n.name, sizeof(n.name), "%s", d->name);
	va_start(ap, format);
	vsnprintf(n.message, sizeof(n.message), format, ap);
	va_end(ap);
	tell_log(&n);
	followers_tell(d->manager, &n);
	programs_tell(d, &n);
}
