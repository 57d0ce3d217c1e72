/* Disposable children: a fork without exec that answers once and is gone.
 *
 * What may block or meets a peer's bytes is done in one: it needs no file while the root
 * device is away, and when it hangs it is killed at its wall-clock limit. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "daemon/sandbox.h"

#define CHILD_MESSAGE_MAX (24 * 1024)	/* bytes of an answer */

struct child_spec {
	const char *what;		/* for `ps`: `connect nbd0` */
	const struct sandbox *sandbox;
	enum sandbox_role role;
	/* Before power is dropped, may be NULL: a descriptor to keep, or -errno. */
	int (*prepare)(void *arg);
	/* In the child, in its role; KEPT is what prepare returned. */
	void (*run)(int sock, int kept, void *arg);
	void *arg;			/* the child sees its own copy of all memory */
	uint64_t limit_usec;		/* wall clock */
	size_t answers;			/* how many it gives; 0: one */
	bool lasting;			/* see child_start_lasting */
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
/* The same for one that lives on, also without us, until it ends by itself.  Fills in its
 * socket and a pidfd, which are the caller's. */
_must_check_ int child_start_lasting(sd_event *event, const struct child_spec *spec,
				     int *ret_sock, int *ret_pidfd, pid_t *ret_pid);
/* Kill it, without a call of done.  NULL is fine.  Returns NULL. */
struct child *child_cancel(struct child *c);
