/* One attempt at a negotiated connection: dial, handshake, option haggling, in a child. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "daemon/child.h"
#include "daemon/sample.h"
#include "daemon/target.h"
#include "daemon/tls_plan.h"

#define CONNECTOR_MESSAGE_MAX 512

/* How soon it makes sense to ask again. */
enum connect_failure {
	FAILURE_SOON,		/* refused or reset: cheap to ask, likely a restart */
	FAILURE_BACKOFF,	/* unreachable, silent */
	FAILURE_PERMANENT,	/* the server said no, or is none: somebody has to act */
};

/* Those of the transmission flags that mean something here (NBD protocol, transmission
 * flags); linux/nbd.h has not all of them. */
enum transmission_flag {
	FLAG_READ_ONLY = 1 << 1,
	FLAG_SEND_FLUSH = 1 << 2,
	FLAG_SEND_FUA = 1 << 3,
	FLAG_SEND_TRIM = 1 << 5,
	FLAG_SEND_WRITE_ZEROES = 1 << 6,
	FLAG_CAN_MULTI_CONN = 1 << 8,
};

/* What an export is, as the server said in the handshake. */
struct export_info {
	uint64_t size;			/* bytes, > 0 */
	uint16_t flags;			/* transmission flags */
	uint32_t block_minimum;		/* bytes, 0: not said */
	uint32_t payload_maximum;	/* bytes, 0: not said */
};

struct connection {
	int fd;				/* negotiated; the callee's */
	struct export_info info;
	struct link_tls tls;
	struct nbdd_tls_state state;	/* for a relay; version 0: there is no TLS for it to do */
};

struct connector_result {
	const struct connection *connection;	/* NULL: failed */
	const struct digests *digests;	/* of the samples that were asked for */
	enum connect_failure failure;
	char message[CONNECTOR_MESSAGE_MAX];	/* escaped; names the server */
	char kernel_tls[TLS_WHY_MAX];	/* why the kernel's TLS failed, if that was it */
};

struct connector;
struct connectors;			/* all of a daemon */
typedef void (*connector_done_fn)(const struct connector_result *result, void *userdata);

struct connector_spec {
	const char *name;		/* of the device, for `ps` */
	const struct target *target;	/* whose export is meant; valid until the end */
	const struct server *server;	/* copied */
	const struct tls_plan *tls;
	const struct samples *samples;	/* to read on the way, unless the export is too small
					 * for them; or NULL */
	uint64_t limit_usec;		/* wall clock */
	connector_done_fn done;		/* called once, unless it is cancelled before */
	void *userdata;
};

int connectors_new(sd_event *event, struct spawner *spawner, const struct sandbox *sandbox,
		   struct connectors **ret);
/* Every connector has ended or was cancelled.  NULL is fine. */
void connectors_free(struct connectors *all);
/* Are as many processes at work as may be?  Another connector would get -EAGAIN. */
bool connectors_busy(const struct connectors *all);

/* Connect as SPEC says: 0, -EAGAIN, or -errno.  A process may do it for several that begin in
 * the same moment and are with the same server. */
_must_check_ int connector_start(struct connectors *all, const struct connector_spec *spec,
				 struct connector **ret);
struct connector *connector_cancel(struct connector *c);
