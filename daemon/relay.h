/* The relay: where the kernel cannot do the TLS of a connection, or cannot use its socket (a
 * vsock), a process moves the data, between the server's socket and one end of a pair whose
 * other end the kernel's nbd driver has.  It needs nothing of the daemon and survives it:
 * whoever ends the device or the connection ends it, too.  Its own death is a dead connection
 * like any other.
 *
 * It is a fork of the spawner, not of the connector that met the server first.  It may not wait
 * for the disk that it carries: its memory is locked, what the kernel allocates for it does
 * not wait for writes, and while it works it allocates nothing. */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include <nbdd.h>
#include "lib/util/macro.h"

struct spawner;

#define RELAY_WHY_MAX 200

/* What it tells the daemon, if there is one that listens. */
enum relay_news {
	RELAY_BEGINS = 1,		/* the kernel adds who it is */
	RELAY_ENDS,		/* WHY says why; the kernel hears of it after that */
	RELAY_KEY_USED,		/* for as many records as were allowed */
};

struct relay_message {
	uint32_t news;			/* enum relay_news */
	char why[RELAY_WHY_MAX];	/* a clause: "closed by the server" */
};

/* A relay as it is asked for; both descriptors are the caller's. */
struct relay {
	int sock;			/* its messages */
	int kernel;			/* the end of its pair for the nbd driver */
};

/* The file RUNTIME_DIR/relays, in which each relay marks that it runs; the caller's, or
 * -errno.  What /proc tells of a process may be hidden from nbdd. */
_must_check_ int relay_marks_open(const char *runtime_dir);
/* Ask for one for the device NAME over SERVER, which stays the caller's; a STATE of version 0 is
 * for bytes that pass as they are.  After RECORDS with one key, where keys have a limit, it says
 * so.  When there will be none, SOCK comes to its end, and so does KERNEL.  0 or -errno. */
_must_check_ int relay_start(struct spawner *spawner, int marks, const char *name,
			     int server, const struct nbdd_tls_state *state, uint64_t records,
			     struct relay *ret);
/* The next of its messages, and its sender's pid: 1; 0: there is none now; or -errno. */
_must_check_ int relay_receive(int sock, struct relay_message *ret, pid_t *ret_pid);
/* Process PID, if it is a relay by its mark: its pidfd, -ESRCH when it is not there any more,
 * or another -errno. */
_must_check_ int relay_find(int marks, pid_t pid);
/* The same for the one that sent PID over SOCK. */
_must_check_ int relay_identify(pid_t pid, int sock);

/* ---- the process: see struct child_spec ---------------------------------------------- */

int relay_prepare(void *arg);
void relay_settle(int kept, void *arg);
void relay_main(int sock, int kept, void *arg);
