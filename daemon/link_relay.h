/* What the daemon has of a link's relay. */
#pragma once

#include <sys/types.h>
#include <systemd/sd-event.h>

#include "daemon/relay.h"

struct link;

struct link_relay {
	pid_t pid;			/* 0: there is none, and the rest says nothing */
	int pidfd;
	int sock;			/* struct relay_message come from it */
	int server_fd;			/* duplicate of its socket to the server */
	char why[RELAY_WHY_MAX];	/* it ended, or "" */
	sd_event_source *news;
};

/* The connector's connection over FD, the server's socket, goes on by a relay: l->fd is then
 * the socket for the kernel.  0, or -errno and FD is closed. */
_must_check_ int link_relay_start(struct link *l, int fd, const struct nbdd_tls_state *state);
/* The socket whose other end is the server's. */
int link_server_fd(const struct link *l);
/* The link is alive: listen to its relay, if it has one. */
void link_relay_watch(struct link *l);
/* Why it ended, escaped, as far as it has told; or NULL. */
const char *link_relay_why(struct link *l);
/* The link is done with it: it ends by itself, within a few seconds or by force. */
void link_relay_end(struct link *l);
