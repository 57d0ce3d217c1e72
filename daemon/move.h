/* A device on its way to another server, live.
 *
 * Beside the live links the new server is reached, its export compared with the device by
 * size, flags and some of its data, and as many connections are made as the device has.  Then
 * the old links are cut, and once the kernel knows them dead it is given the new ones: from
 * that moment on the new server is the right one, for it may have completed a write. */
#pragma once

#include "daemon/device.h"
#include "daemon/sample.h"
#include "lib/util/clock.h"

#define MOVE_WAIT_USEC USEC_PER_MINUTE	/* without a link I/O waits at least so long */

enum move_phase {
	MOVE_RESOLVE,		/* the new server's name */
	MOVE_SAMPLE,		/* read what the device has */
	MOVE_CONNECT,		/* one connection, and the same data over it */
	MOVE_COMPARE,		/* the device's data once more */
	MOVE_JOIN,		/* the other connections */
	MOVE_FLUSH,		/* the device, on the old server */
	MOVE_PREPARE,		/* the kernel: I/O is to wait meanwhile */
	MOVE_SWITCH,		/* STATE_MOVING from here on: the old links die */
	MOVE_CHECK,		/* the new ones are in place, a first read is on its way */
	MOVE_RETURN,		/* that went wrong: the new links die */
	N_MOVE_PHASES
};

/* The move is over: ERROR NULL, and TEXT is a warning or empty; or a name of the interface's
 * errors, and TEXT says why.  d->move is valid in the call, except that D may be going away. */
typedef void (*move_done_fn)(struct device *d, const char *error, const char *text,
			     uint64_t pause_usec, void *userdata);

struct move {
	enum move_phase phase;
	bool force;			/* without a look at the data */
	move_done_fn done;		/* for whoever asked, or NULL */
	void *userdata;

	/* Of the new server; from MOVE_CHECK on, of the old one. */
	struct device_keys keys;
	struct target target;
	struct tls_secrets *secrets;
	struct ktls_trust ktls;

	struct resolver *resolver;
	struct link links[CONF_CONNECTIONS_MAX];
	struct errand *errand;
	sd_event_source *timer;
	/* When TIMER is over, or the secrets are read. */
	enum device_state (*again)(struct device *d);

	bool compares;
	unsigned round;			/* of comparison */
	char peer[LINK_PEER_MAX];	/* with whom the first was */
	struct samples samples;		/* not known to be the same yet */
	struct digests before, theirs;
	uint32_t n_compared, n_changing;

	uint64_t cut_usec;		/* when the old links were cut, monotonic */
	bool flushed;			/* on the old server, as far as it can be */
	bool counts;			/* the block layer does count them: */
	uint64_t writes;		/* completed by the old server */
	bool asked;			/* the kernel may have been given the new links */
	char reason[DEVICE_REASON_MAX];	/* of MOVE_RETURN */
	char warning[DEVICE_REASON_MAX];
};

/* Prepare a move of D, which has none; begins with EV_MOVE.  KEYS are copied.  0 or
 * -ENOMEM. */
_must_check_ int move_new(struct device *d, const struct device_keys *keys, bool force,
			  move_done_fn done, void *userdata);
/* None is fine; whoever waits is told. */
void move_free(struct device *d);
/* Tell whoever waits. */
void move_end(struct device *d, const char *error, const char *text, uint64_t pause_usec);
/* Whoever asked has left: a move that has not come to its switch is given up. */
void move_forget(struct device *d);
/* Give the move up, if there is one, before its switch. */
void move_cancel(struct device *d, const char *why);
/* The device has lost its server; a comparison cannot go on. */
void move_server_lost(struct device *d);
/* It has one again; what began without goes on without a comparison only if forced. */
void move_server_back(struct device *d);

/* A candidate is to be connected again, by other means. */
void move_connect(struct device *d);

const char *move_phase_name(const struct device *d);

/* ---- between its two files ---------------------------------------------------------- */

_printf_(3, 4) void move_fail(struct device *d, const char *error, const char *format, ...);
void move_again(struct device *d, uint64_t usec, enum device_state (*fn)(struct device *d));
enum device_state move_flush(struct device *d);
/* For move_again.  Frees D if another program has disconnected it. */
enum device_state move_switch_now(struct device *d);
