/* Processes of their own that do for an nbdd which is not root what that may not: `nbdd
 * --serve=NAME`.  systemd listens for them on RUNTIME_DIR-NAME, and starts them when nbdd (or
 * root) connects there. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "lib/util/macro.h"

#define SERVICE_USER		"nbdd-daemon"	/* whom nbdd is, and who alone may ask */

struct service {
	int listen;
	uid_t user;			/* SERVICE_USER, or root where there is none */
};

/* ---- its side ---------------------------------------------------------------------- */

/* Take the one socket that systemd has passed.  0 or -errno, which was logged. */
_must_check_ int service_open(struct service *ret);
/* The next client, which does not block and is one that may ask.  Its descriptor; -EAGAIN:
 * none; -EPERM: another, which was logged and turned away; -errno. */
_must_check_ int service_accept(const struct service *s);

/* ---- nbdd's side ------------------------------------------------------------------- */

/* A connection to NAME, made without a wait and not blocking.  Its descriptor or -errno. */
_must_check_ int service_connect(const char *runtime_dir, const char *name);
/* Does something seem to listen there?  ERROR is what service_connect said last, or 0: of a
 * socket that was not there it is seen when it is. */
bool service_is_there(const char *runtime_dir, const char *name, int error);
