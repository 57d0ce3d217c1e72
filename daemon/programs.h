/* Programs that are run when something happens to a device (on-event).
 *
 * nbdd itself executes nothing: another process runs them, and gets orders over a socket that
 * nbdd never waits for.  When nbdd is root, that is a fork of it, made before it gives up its
 * power, and is told the program.  Else it is a service of its own, which is told the device
 * alone and takes the program from the configuration: no order makes it run anything else. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "daemon/news.h"
#include "lib/util/clock.h"

struct manager;

#define PROGRAMS_AT_ONCE	4
#define PROGRAMS_WAITING	64		/* for their turn, the running ones included */
#define PROGRAM_LIMIT_USEC	(30 * USEC_PER_SEC)
#define PROGRAM_CLIENTS_MAX	8		/* of the service */
#define PROGRAM_IDLE_USEC	(60 * USEC_PER_SEC)	/* then the service ends */
#define PROGRAMS_SOCKET_BYTES	(64u << 10)	/* of orders on their way there */
#define PROGRAM_PATH_MAX	1023
#define PROGRAM_USER_MAX	255

/* One program to run; texts end with a NUL.  The service is sent the news alone. */
struct program_order {
	char path[PROGRAM_PATH_MAX + 1];
	char user[PROGRAM_USER_MAX + 1];	/* "": nbdd's own unprivileged one */
	struct news news;
};

struct programs {
	int sock;			/* -1: the process has ended; the service: not connected */
	pid_t pid;			/* of the fork */
	const char *runtime_dir;	/* of the service; NULL: it is a fork */
	int error;			/* of the last attempt to connect, 0 or -errno */
	uint64_t dropped;		/* orders, since it last took one */
	sd_event_source *end;
};

/* Fork the process, while nbdd may still execute, if it may.  0 or -errno. */
_must_check_ int programs_start(const char *runtime_dir, struct programs *p);
/* Notice its end. */
void programs_watch(struct programs *p, sd_event *event);
/* It ends when it has run what it was told. */
void programs_stop(struct programs *p);

/* Run D's program, if it has one. */
void programs_tell(struct device *d, const struct news *n);
/* Why D's program would not run, a sentence; or NULL. */
const char *programs_warning(const struct device *d);
/* The files have been read: log whose program, of those that were taken over, does not run. */
void programs_check(const struct manager *m);

/* ---- the process ------------------------------------------------------------------- */

struct manager_options;

_noreturn_ void program_runner(int sock);
/* The same, as a service: `nbdd --serve=programs`. */
int program_serve(const struct manager_options *o);
