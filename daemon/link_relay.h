/* What the daemon has of a link's relay. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "daemon/relay.h"

struct link;

struct link_relay {
	bool there;			/* or the rest says nothing */
	pid_t pid;			/* 0: it has not told yet */
	int pidfd;			/* -1 also: it has ended */
	int sock;			/* struct relay_message come from it; -1: taken over */
	int server_fd;			/* duplicate of its socket to the server; the same */
	char why[RELAY_WHY_MAX];	/* it ended, or "" */
	unsigned told;			/* bits of enum relay_news: each once */
	sd_event_source *news, *late;
	sd_event_source *death;
};

/* The connector's connection over FD, the server's socket, goes on by a relay: l->fd is then
 * the socket for the kernel.  0, or -errno and FD is closed. */
_must_check_ int link_relay_start(struct link *l, int fd, const struct nbdd_tls_state *state);
/* Then wait until it has begun, or will not: link_relayed.  0 or -errno. */
_must_check_ int link_relay_await(struct link *l);
/* It was started by an earlier nbdd as PID (0: none, or unknown). */
void link_relay_adopt(struct link *l, pid_t pid);
/* It has one, and that is dead. */
bool link_relay_dead(const struct link *l);
/* End it, and with it the connection: 0, -EOPNOTSUPP (it has none), or another -errno. */
int link_relay_kill(const struct link *l);
/* The socket whose other end is the server's; -1: only the relay has it. */
int link_server_fd(const struct link *l);
/* The link is alive: listen to its relay, if it has one; without a descriptor of the link its
 * death is an EV_LINK_DEAD. */
void link_relay_watch(struct link *l);
/* Why it ended, escaped, as far as it has told; or NULL. */
const char *link_relay_why(struct link *l);
/* The link is done with it: it ends by itself, within a few seconds or by force. */
void link_relay_end(struct link *l);
