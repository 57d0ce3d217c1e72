/* One connection of a device: its connector, our duplicate of its socket, the watch. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <systemd/sd-event.h>

#include "daemon/connector.h"
#include "daemon/link_relay.h"
#include "lib/util/macro.h"
#include "netlink/nbdk.h"

#define LINK_PEER_MAX	128

struct device;

enum link_state {
	LINK_IDLE,		/* waits for its turn or its retry */
	LINK_CONNECTING,	/* a connector is at work, or the relay is to begin */
	LINK_READY,		/* negotiated; not yet in the kernel */
	LINK_HANDED,		/* the kernel is being given it */
	LINK_ALIVE,
};

/* One connection of a device. */
struct link {
	struct device *device;
	enum link_state state;
	int fd;				/* our duplicate; -1 also: lost by a crash */
	struct connector *connector;
	sd_event_source *watch;		/* for hang-up of fd */
	struct export_info info;	/* of the connection in state READY */
	struct link_tls tls;		/* of the connection, from READY on */
	struct link_relay relay;	/* what does its TLS, if the kernel does not */
	struct digests *digests;	/* for the one who waits for that; NULL: none */
	uint64_t tls_records;		/* with its key, when last looked at, */
	uint64_t tls_looked_usec;	/* monotonic; 0: not yet */
	struct nbdk_sock sock;		/* of FD, and of a link without one */
	char peer[LINK_PEER_MAX];
	const char *cut_why;		/* we ended it ourselves */
	bool candidate;			/* of a move; not one of the device's own */
	uint64_t since_real_usec;	/* CLOCK_REALTIME */
	uint64_t alive_usec;		/* monotonic; 0: not yet, or since an earlier nbdd */
	bool stored;			/* in systemd's store */
	bool tried;			/* STATE_CONNECTING: its one attempt has ended */
};

/* Start a connector for an idle link: 0, -EAGAIN (no free connector: manager_kick comes
 * back to it), or -errno.  Its end is an EV_SOCKET or EV_FAILED. */
_must_check_ int link_connect(struct link *l);
/* The same for a connection beside the live ones, with another server; the arguments are
 * connector_start's.  Its end is an EV_CANDIDATE or EV_CANDIDATE_FAILED.  -EAGAIN: no free
 * connector, try again later. */
_must_check_ int link_connect_candidate(struct link *l, struct target *target,
					const struct tls_plan *tls, uint64_t limit_usec,
					const struct samples *samples);
/* Set the socket's keepalive to what the device's keys say. */
void link_set_keepalive(struct link *l);
/* The kernel has it: ALIVE, and watched for hang-up, which is an EV_LINK_DEAD. */
void link_alive(struct link *l);
/* Close, cancel, forget: back to IDLE. */
void link_reset(struct link *l);
/* An address, as `peer` has it. */
void link_format_peer(char ret[static LINK_PEER_MAX], const struct sockaddr_storage *addr,
		      socklen_t len);
/* What TCP knows of the way to the server; false: it is not TCP, or not connected. */
struct link_network {
	uint64_t rtt_usec, retransmits;
};
_must_check_ bool link_network(const struct link *l, struct link_network *ret);
/* Has the socket hung up, whatever the watch knows of it yet? */
bool link_hung_up(const struct link *l);
/* The kernel has had it since an earlier nbdd, SINCE (CLOCK_REALTIME).  FD is its descriptor,
 * the callee's, or -1.  False: it has died meanwhile, and the link is idle. */
bool link_adopt(struct link *l, const struct nbdk_sock *sock, int fd, uint64_t since);
/* An EV_LINK_DEAD for each link without a descriptor that is found dead, or, if ALL are known
 * to be, for each; each frees D at most if that was its last wish. */
void link_find_dead(struct device *d, bool all);
/* Make a live connection die now; the watch will tell, with WHY (static text).  0, or
 * -EOPNOTSUPP: its descriptor is lost, it has no relay, and the kernel can do nothing about it. */
int link_cut(struct link *l, const char *why);
/* Its relay has begun (0), or will not (-errno): the one who asked for a connection is told. */
void link_relayed(struct link *l, int r);
