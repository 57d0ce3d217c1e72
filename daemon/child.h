/* Disposable children: a fork without exec that answers once and is gone.
 *
 * What may block or meets a peer's bytes is done in one: it needs no file while the root
 * device is away, and when it hangs it is killed at its wall-clock limit.  Those that are root
 * are forks of nbdd; those that meet a peer are the spawner's (spawner.h), and to whoever
 * started them there is no difference. */
#pragma once

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "daemon/job.h"
#include "daemon/sandbox.h"

struct spawner;

#define CHILD_MESSAGE_MAX (24 * 1024)	/* bytes of an answer */

struct child_spec {
	const char *what;		/* for `ps`: `connect nbd0` */
	enum sandbox_role role;
	/* A child of the spawner; the descriptors stay the caller's. */
	struct spawner *spawner;
	int job, kept;			/* for it, or -1 */
	/* If not 0, its one answer is so many bytes, and KEPT, which is none of the caller's, a
	 * pipe for them: whoever takes it over can send no descriptor, which nbdd would have to
	 * let go (lib/util/rights.h). */
	size_t bytes;
	/* Or, SPAWNER being NULL, a fork of this process: */
	const struct sandbox *sandbox;
	/* Before power is dropped, may be NULL: a descriptor to keep, or -errno. */
	int (*prepare)(void *arg);
	/* When it has no other descriptors any more, before its filter; may be NULL. */
	void (*settle)(int kept, void *arg);
	/* In the child, in its role; KEPT is what prepare returned. */
	void (*run)(int sock, int kept, void *arg);
	void *arg;			/* the child sees its own copy of all memory */
	bool lasting;			/* it lives on, also without its parent */

	uint64_t limit_usec;		/* wall clock */
	size_t answers;			/* how many it gives; 0: one */
	unsigned *alive;		/* counts processes not yet reaped, or NULL */
};

struct child_answer {
	int error;			/* 0; -ETIMEDOUT; -ECHILD: ended without an answer */
	const void *data;		/* LEN bytes, aligned as malloc does, valid in the call */
	size_t len;
	int fd;				/* a descriptor it sent, or -1; the callee's */
};

struct child;
typedef void (*child_done_fn)(const struct child_answer *answer, void *userdata);

/* Fork and run SPEC; DONE is called for each answer, or once when no more will come; not after
 * the child was cancelled.  After an error or the last answer the child has been ended. */
int child_start(sd_event *event, const struct child_spec *spec, child_done_fn done,
		void *userdata, struct child **ret);
/* What an error of child_start says to people. */
const char *child_strerror(int r);
/* Kill it, without a call of done.  NULL is fine.  Returns NULL. */
struct child *child_cancel(struct child *c);

/* ---- for the spawner --------------------------------------------------------------- */

/* What a child of it gets as ARG. */
struct child_given {
	int job, kept;			/* descriptors, until it has prepared; or -1 */
	const struct sandbox *sandbox;
	struct job mapped;		/* ... and what it is: */
	void *work;
};

/* In a fork of PARENT: be what SPEC says, over SOCK. */
_noreturn_ void child_main(const struct child_spec *spec, int sock, pid_t parent);
/* A process that ended in another way than by its own will is worth a line. */
void child_log_end(const char *what, const siginfo_t *si);
