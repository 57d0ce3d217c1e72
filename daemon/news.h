/* What happens to devices, told to those who want to know: the journal, clients of the
 * control socket, programs.  None of them is waited for. */
#pragma once

#include <stdint.h>

#include "conf/conf.h"
#include "daemon/outage.h"
#include "lib/util/macro.h"

#define NEWS_KEPT 256			/* for clients that are slow to read */

struct device;
struct manager;
struct varlink_call;

enum news_kind {
	NEWS_ATTACHED,
	NEWS_ADOPTED,			/* taken over from an earlier nbdd */
	NEWS_DEGRADED,			/* one of several connections was lost */
	NEWS_OUTAGE,			/* the last one was */
	NEWS_RECONNECTED,
	NEWS_REFUSED,
	NEWS_FAILING,
	NEWS_MOVED,
	NEWS_GROWN,
	NEWS_CERTIFICATE,		/* one ends soon */
	NEWS_DETACHED,
	NEWS_GONE,			/* another program has disconnected it */
	N_NEWS
};

struct news {
	uint64_t real_usec;		/* CLOCK_REALTIME */
	enum news_kind kind;
	char device[32];		/* /dev/nbdN, or "" */
	char name[CONF_NAME_MAX + 1];
	char message[DEVICE_REASON_MAX];
};

/* `attached`, …: as in NBDD_EVENT. */
const char *news_name(enum news_kind kind);

/* Something has happened to D: a sentence about it. */
_printf_(3, 4) void news_tell(struct device *d, enum news_kind kind, const char *format, ...);

/* A call of Events that wants more gets what happens from now on, to NAME (or /dev/nbdN) or
 * (NULL) to all.  0, -EBUSY, -ENOMEM. */
_must_check_ int news_follow(struct manager *m, struct varlink_call *call, const char *name);
void news_free(struct manager *m);
