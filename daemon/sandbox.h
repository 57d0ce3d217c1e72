/* What a child of the daemon may do, by its role. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "lib/util/macro.h"

enum sandbox_role {
	SANDBOX_DIAL,		/* opens connections; reads no byte of a server */
	SANDBOX_NEGOTIATE,	/* reads a server's bytes: its descriptors are all it has */
	SANDBOX_RELAY,		/* moves bytes between two sockets that it is given */
	SANDBOX_RESOLVE,	/* name service, whose modules open files and sockets */
	SANDBOX_READ,		/* nbdd's own user, reads files of keys */
	SANDBOX_ERRAND,		/* the same, on a device's node and sysfs; parses nothing */
	SANDBOX_REACH,		/* the same, connects to a socket's path; reads no byte of it */
	SANDBOX_DISPOSE,	/* the same, has a socket until it is killed */
	SANDBOX_ROLES
};

struct sandbox;

#define SANDBOX_FIRST_FD 32	/* its descriptors; below, a process arranges its own */

/* Everything a child will need of files, names and memory, made at the start.  The empty
 * directory `empty` is made in RUNTIME_DIR; NULL: for children who stay this process's user, who
 * has no power and cannot be shut into one.  What the kernel lacks is logged once.
 * 0 or -errno. */
_must_check_ int sandbox_new(const char *runtime_dir, struct sandbox **ret);
/* In a fork that makes children itself: how big they begin is its own size from now on.  Reads
 * nothing from a disk.  0 or -errno. */
_must_check_ int sandbox_forked(struct sandbox *s);
void sandbox_free(struct sandbox *s);

/* Are there filters?  Logs why not. */
bool sandbox_can_filter(void);

/* Be the effective user that children become that meet a peer, with the same permitted
 * capabilities as before.  0 or -errno. */
_must_check_ int sandbox_become_user(const struct sandbox *s);

/* In a child that still has what its parent has, once: the user, capabilities, limits and root
 * directory of ROLE; it dies with its parent.  The parent is who made S for the roles that are
 * nbdd's own user, and has become the other one for those that are not.  Descriptors of the
 * parent may be closed after it.  0 or -errno; on an error the child must not go on. */
_must_check_ int sandbox_enter(const struct sandbox *s, enum sandbox_role role);

/* Then, and once more to go on from DIAL to NEGOTIATE: the system calls of ROLE, and no
 * others from now on.  0 or -errno, as before. */
_must_check_ int sandbox_filter(const struct sandbox *s, enum sandbox_role role);
