/* One supervised device: its keys, its links, and where it is in its life. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "conf/conf.h"
#include "daemon/backoff.h"
#include "daemon/connector.h"
#include "daemon/kworker.h"
#include "daemon/link.h"
#include "daemon/ktls_trust.h"
#include "daemon/outage.h"
#include "daemon/resolver.h"
#include "daemon/target.h"

#define DEVICE_WAITERS_MAX	16	/* control calls that wait for one device */
/* NAME and a random number follow, each after a colon: one attach, one identifier. */
#define DEVICE_IDENTIFIER_PREFIX "nbdd:"

struct manager;
struct varlink_call;

enum device_state {
	STATE_CONNECTING,	/* no kernel device yet: first connections */
	STATE_ATTACHING,	/* NBD_CMD_CONNECT is under way */
	STATE_CONNECTED,	/* every link alive */
	STATE_DEGRADED,		/* some links alive */
	STATE_RECONNECTING,	/* no link alive, I/O waits */
	STATE_REFUSED,		/* the same, and the server is not what it was */
	STATE_FAILING,		/* the same, and dead-timeout has passed: I/O fails */
	STATE_MOVING,		/* between two servers: neither has I/O yet, or one on trial */
	STATE_DETACHING,
	STATE_GONE,		/* freed when the event is handled */
	N_STATES
};

enum device_event {
	EV_START,		/* addresses are known, or it is time to try */
	EV_GO_ON,		/* the pause or child that the state waits for is over */
	EV_SOCKET,		/* a connector has a negotiated socket for a link */
	EV_FAILED,		/* a connector or resolver failed */
	EV_KERNEL_DONE,		/* the kernel did what was asked */
	EV_KERNEL_FAILED,
	EV_LINK_DEAD,
	EV_DEAD_TIMEOUT,
	EV_MOVE,		/* somebody wants it on another server */
	EV_CANDIDATE,		/* a connector has a negotiated socket with that one */
	EV_CANDIDATE_FAILED,
	EV_MOVE_SWITCH,		/* all is ready there */
	EV_MOVE_CHECKED,	/* the first read there has ended; or what the way back asks */
	EV_DETACH,		/* somebody wants it gone */
	EV_LOST,		/* another program disconnected it */
	N_EVENTS
};

struct device {
	struct manager *manager;
	char name[CONF_NAME_MAX + 1];
	int index;			/* /dev/nbdN; -1 until chosen */
	bool index_fixed;		/* asked for: no other will do */
	bool automatic;			/* from a file: goes on trying from the start */
	struct device_keys keys;
	char identifier[NBDK_IDENTIFIER_MAX + 1];

	enum device_state state;
	struct target target;
	struct tls_secrets *secrets;	/* NULL: TLS was not needed yet */
	struct ktls_trust ktls;
	sd_event_source *tls_timer;	/* tls_watch.h */
	int64_t tls_told;		/* the certificates that were looked at, by their ends */
	uint64_t tls_told_usec;		/* monotonic */
	struct resolver *resolver;
	bool queued;			/* waits for a free connector */
	uint64_t resolved_usec;		/* monotonic */
	bool resolve_again;		/* every known address has failed */
	struct link links[CONF_CONNECTIONS_MAX];
	size_t n_links;

	struct export_info info;	/* what the kernel was told at attach */
	uint64_t size;			/* bytes, a multiple of block_size */
	uint32_t block_size;

	struct backoff backoff;
	uint64_t hurried_usec;		/* when the network last changed, monotonic */
	unsigned round;			/* servers tried since the last pause */
	sd_event_source *retry_timer;
	uint64_t retry_at_usec;		/* monotonic; 0: none */
	uint64_t trouble_usec;		/* when the first attempt failed, monotonic */
	bool asks_soon;			/* the last attempt failed as with no server there */
	unsigned attempts;		/* since all was well */
	uint64_t all_attempts;		/* since nbdd has it */
	char last_error[DEVICE_REASON_MAX];
	char logged[DEVICE_REASON_MAX];		/* the last error that the log has */
	char refusal[DEVICE_REASON_MAX];	/* why the last server was not resumed */

	uint64_t requeue_usec;		/* of queue/io_timeout; 0: the kernel's own */
	unsigned dead_links;		/* links that hung up and were not replaced */
	unsigned kernel_dead;		/* of these, what the kernel has told of */
	sd_event_source *settle_timer;	/* waits for the kernel to notice */
	sd_event_source *doubt_timer;	/* the kernel told of a death that we do not see */
	sd_event_source *dead_timer;	/* dead-timeout */
	struct outages outages;
	int life_fd;			/* nbdk_life_open, or -1 */
	struct kernel_call *call;	/* under way on the worker */
	unsigned busy_tries;		/* NBD_CMD_CONNECT said EBUSY */
	sd_event_source *busy_timer;
	/* Children: at work; that sets the queue back; that looks whether somebody has it. */
	struct errand *errand, *tuning, *claim;
	bool waits_longer, timeout_due;	/* the kernel's dead-timeout, timeout are not the keys' */
	struct move *move;		/* to another server, or NULL */
	uint64_t grow_to;		/* bytes; 0: nothing to grow */
	sd_event_source *grow_timer;	/* it has requests in flight */
	bool grows_late;		/* that was logged */
	bool detach_wanted, detach_forced;
	bool letting_go, unused;	/* the kernel is to see who has it open; nobody had */
	unsigned closes;		/* of ours that found somebody there */
	int doubt;			/* why it may look in use and not be; 0 or -errno */
	uint64_t io_before;		/* requests of its earlier lives; UINT64_MAX: not known */
	bool settings_due;		/* the queue may not be set up: adopted, or moved */

	struct varlink_call *attachers[DEVICE_WAITERS_MAX], *detachers[DEVICE_WAITERS_MAX];
	char warning[DEVICE_REASON_MAX];
	bool unwarranted;		/* nobody knows that root has named its program */
	char *warrant;			/* what warrant.h has written of it; NULL: nothing */
	struct saved *saved;		/* its file; NULL: none */
	int save_error;			/* of the latest write, 0 or -errno */
};

/* Make one in STATE_CONNECTING, where it begins with an EV_START; KEYS are copied. */
int device_new(struct manager *m, const char *name, int index, bool automatic,
	       const struct device_keys *keys, struct device **ret);
void device_free(struct device *d);

const char *device_state_name(enum device_state state);
/* New keys: take over what of them is kept elsewhere in D. */
void device_apply_keys(struct device *d);
bool device_is_out(const struct device *d);	/* attached, and no link alive */
/* The same, or between two servers: no file that might be on it may be read. */
bool device_is_away(const struct device *d);
size_t device_links_alive(const struct device *d);
struct link *device_link_in(struct device *d, enum link_state state);
/* How much of an export of so many bytes the device is: whole blocks, `size` at most. */
uint64_t device_usable_size(const struct device *d, uint64_t exported);

/* Log a line that begins with the device's name. */
void device_log(const struct device *d, int priority, const char *format, ...)
	_printf_(3, 4);
void device_set_error(struct device *d, const char *format, ...) _printf_(2, 3);
