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
 * When nbdd ends, the spawner does, and with it all but the relays.  When somebody kills it,
 * its children end, but for the relays, and its keeper, whose fork it is, makes another one,
 * which takes the orders that wait. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "daemon/sandbox.h"
#include "lib/util/macro.h"

#define SPAWNER_CHILDREN_MAX	256		/* at a time, relays not counted */
#define SPAWNER_NAME_MAX	15		/* bytes of a process's name */

struct spawner {
	int sock;			/* -1: it has ended, and its keeper; or see ERROR */
	pid_t keeper;
	/* Of an nbdd that is not root; else NULL. */
	const char *runtime_dir;	/* of its service */
	int error;			/* of the last attempt to connect to it, or 0 */
	sd_event *event;
	sd_event_source *end, *hang_up;
};

/* Fork both, while nbdd still has its power; RUNTIME_DIR exists, and stays.  Who is not root
 * connects to nbdd-connect.service instead, now and whenever that has ended.  0 or -errno. */
_must_check_ int spawner_start(const char *runtime_dir, struct spawner *ret);
/* Notice their end; or connect. */
void spawner_watch(struct spawner *s, sd_event *event);
/* It ends, and its children do, but for the relays. */
void spawner_stop(struct spawner *s);
/* Why there is none, a sentence; or NULL. */
const char *spawner_warning(const struct spawner *s);

/* A child of ROLE, called WHAT by `ps`, with SOCK, its end of a pair.  JOB and KEPT are what
 * the role is given, or -1; all descriptors stay the caller's.  That there is none shows
 * by the end of the pair.  0 or -errno: -EOWNERDEAD, the spawner has ended; -ENOTCONN, there
 * is no service. */
_must_check_ int spawner_ask(struct spawner *s, enum sandbox_role role, const char *what,
			     int sock, int job, int kept);
/* Kill a relay by its pidfd: the spawner is its user, and nbdd has no right to.  0 or -errno. */
_must_check_ int spawner_kill(struct spawner *s, int pidfd);

/* ---- the processes ------------------------------------------------------------------- */

/* The keeper, as long as nbdd has the other end of SOCK. */
_noreturn_ void spawner_keep(int sock, const char *runtime_dir);
/* The spawner, as a fork that keeps its parent's identity; TIED: it dies with that.  Its pid,
 * or -1. */
pid_t spawner_fork(int sock, struct sandbox *sandbox, bool tied);
#define SPAWNER_SOCK 3			/* in it */

/* The same for an nbdd that is not root, as a process of its own: `nbdd --serve=connections`,
 * whose forks are the spawners of its clients. */
struct manager_options;
int spawner_serve(const struct manager_options *o);
#define SPAWNER_CLIENTS_MAX 8		/* of it */

/* What is sent, with the descriptors that it tells of, in this order. */
enum spawner_verb { SPAWNER_MAKE = 1, SPAWNER_KILL };

struct spawner_order {
	uint32_t verb;			/* enum spawner_verb */
	uint32_t role;			/* SPAWNER_MAKE: enum sandbox_role */
	uint32_t has_job, has_kept;	/* ... behind the socket */
	char what[SPAWNER_NAME_MAX + 1];
	char version[SPAWNER_NAME_MAX + 1];	/* of who asks: no other knows its jobs */
};

#define SPAWNER_FDS_MAX 3
