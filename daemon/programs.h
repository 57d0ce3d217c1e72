/* Programs that are run when something happens to a device (on-event).
 *
 * nbdd itself executes nothing: a process that is forked before it gives up its power runs
 * them, and gets orders over a socket that nbdd never waits for. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "daemon/news.h"
#include "lib/util/clock.h"

#define PROGRAMS_AT_ONCE	4
#define PROGRAMS_WAITING	64		/* for their turn, the running ones included */
#define PROGRAM_LIMIT_USEC	(30 * USEC_PER_SEC)
#define PROGRAMS_SOCKET_BYTES	(64u << 10)	/* of orders on their way there */
#define PROGRAM_PATH_MAX	1023
#define PROGRAM_USER_MAX	255

/* One program to run; texts end with a NUL. */
struct program_order {
	char path[PROGRAM_PATH_MAX + 1];
	char user[PROGRAM_USER_MAX + 1];	/* "": nbdd's own unprivileged one */
	char event[32];
	struct news news;
};

struct programs {
	int sock;			/* -1: the process has ended */
	pid_t pid;
	uint64_t dropped;		/* orders, since it last took one */
	sd_event_source *end;
};

/* Fork the process, while nbdd may still execute.  0 or -errno. */
_must_check_ int programs_start(struct programs *p);
/* Notice its end. */
void programs_watch(struct programs *p, sd_event *event);
/* It ends when it has run what it was told. */
void programs_stop(struct programs *p);

/* Run D's program, if it has one. */
void programs_tell(struct device *d, const struct news *n);
/* Why D's program would not run, a sentence; or NULL. */
const char *programs_warning(const struct device *d);

/* ---- the process ------------------------------------------------------------------- */

_noreturn_ void program_runner(int sock);
/* The same, as a process of its own: `nbdd --serve=programs`. */
struct manager_options;
int program_serve(const struct manager_options *o);
/* program_execute.c: in a fork of it. */
_noreturn_ void program_execute(const struct program_order *o);
