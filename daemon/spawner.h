/* The spawner: a process that makes those children of nbdd that meet a peer, or the answer of
 * one: connectors, relays, resolvers.
 *
 * It is forked before nbdd gives up its power, and is from then on the unprivileged user that
 * its children are, who have nothing of nbdd's in their memory but the job that they are
 * given.  It gets orders of fixed size over a socket that nbdd never waits for, reads neither
 * jobs nor answers, and opens no file.
 *
 *	nbdd				spawner			child
 *	order + a socket, job, ...  ->
 *					forks		->	(has the socket)
 *	job's answers		<----------------------
 *	shuts the socket down	->	kills it
 *	sees the socket's end	<-	has reaped it
 *
 * When nbdd ends, the spawner does, and with it all but the relays. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "daemon/sandbox.h"
#include "lib/util/macro.h"

#define SPAWNER_CHILDREN_MAX	256		/* at a time, relays not counted */
#define SPAWNER_NAME_MAX	15		/* bytes of a process's name */

struct spawner {
	int sock;			/* -1: it has ended */
	pid_t pid;
	sd_event_source *end;
};

/* Fork it, while nbdd still has its power; RUNTIME_DIR exists.  0 or -errno. */
_must_check_ int spawner_start(const char *runtime_dir, struct spawner *ret);
/* Notice its end. */
void spawner_watch(struct spawner *s, sd_event *event);
/* It ends, and its children do, but for the relays. */
void spawner_stop(struct spawner *s);

/* A child of ROLE, called WHAT by `ps`, with SOCK, its end of a pair.  JOB and KEPT are what
 * the role is given, or -1; all descriptors stay the caller's.  That there is none shows
 * by the end of the pair.  0 or -errno: -EOWNERDEAD, the spawner has ended. */
_must_check_ int spawner_ask(const struct spawner *s, enum sandbox_role role, const char *what,
			     int sock, int job, int kept);
/* Kill a relay by its pidfd: the spawner is its user, and nbdd has no right to.  0 or -errno. */
_must_check_ int spawner_kill(const struct spawner *s, int pidfd);

/* ---- the process ------------------------------------------------------------------- */

_noreturn_ void spawner_main(int sock, const char *runtime_dir);

/* What is sent, with the descriptors that it tells of, in this order. */
enum spawner_verb { SPAWNER_MAKE = 1, SPAWNER_KILL };

struct spawner_order {
	uint32_t verb;			/* enum spawner_verb */
	uint32_t role;			/* SPAWNER_MAKE: enum sandbox_role */
	uint32_t has_job, has_kept;	/* ... behind the socket */
	char what[SPAWNER_NAME_MAX + 1];
};

#define SPAWNER_FDS_MAX 3
