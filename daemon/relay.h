/* The relay: where the kernel cannot do the TLS of a connection, or cannot use its socket (a
 * vsock), a process moves the data, between the server's socket and one end of a pair whose
 * other end the kernel's nbd driver has.  It needs nothing of the daemon and survives it:
 * whoever ends the device or the connection ends it, too.  Its own death is a dead connection
 * like any other.
 *
 * It is a fork of the daemon, not of the connector that met the server first.  It may not wait
 * for the disk that it carries: its memory is locked, what the kernel allocates for it does
 * not wait for writes, and while it works it allocates nothing. */
#pragma once

#include <stdint.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include <nbdd.h>
#include "daemon/sandbox.h"
#include "lib/util/macro.h"

#define RELAY_WHY_MAX 200

/* What it tells the daemon, if there is one that listens. */
enum relay_news {
	RELAY_ENDS = 1,		/* WHY says why; the kernel hears of it after that */
	RELAY_KEY_USED,		/* for as many records as were allowed */
};

struct relay_message {
	uint32_t news;			/* enum relay_news */
	char why[RELAY_WHY_MAX];	/* a clause: "closed by the server" */
};

/* A relay as it was started; all descriptors are the caller's. */
struct relay {
	pid_t pid;
	uint64_t started;		/* clock ticks since the boot: with PID, which it is */
	int pidfd;
	int sock;			/* its messages */
	int kernel;			/* the end of its pair for the nbd driver */
};

/* Start one for the device NAME over SERVER, which stays the caller's; a STATE of version 0 is
 * for bytes that pass as they are.  After RECORDS with
 * one key, where keys have a limit, it says so.  0 or -errno. */
_must_check_ int relay_start(sd_event *event, const struct sandbox *sandbox, const char *name,
			     int server, const struct nbdd_tls_state *state, uint64_t records,
			     struct relay *ret);

/* A pidfd of the relay that an earlier nbdd started as PID at STARTED; -ESRCH: it has ended;
 * or another -errno. */
_must_check_ int relay_find(pid_t pid, uint64_t started);
