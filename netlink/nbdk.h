/* The door of netlink/: the kernel's nbd driver as a daemon needs it.
 *
 * Calls return 0 or negative errno and block while the kernel does: the driver serialises
 * its generic netlink calls, and some wait for I/O (kernel: drivers/block/nbd.c).  The
 * daemon makes them on a worker thread. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/util/macro.h"
#include "netlink/diag.h"
#include "netlink/holders.h"

#define NBDK_INDEX_ANY		(-1)
#define NBDK_INDEX_MAX		((1u << 20) - 1)	/* minors the driver can number */
#define NBDK_SOCKETS_MAX	16			/* sockets that one call carries */
#define NBDK_DEAD_CONN_FOREVER	UINT64_C(4294967295)	/* seconds; the kernel's infinity */
#define NBDK_TIMEOUT_OFF	UINT64_MAX	/* of a reconnect: from now on none */
#define NBDK_IDENTIFIER_MAX	255

/* What NBD_CMD_CONNECT carries.  The driver remembers timeouts from a device's earlier
 * life and takes 1024 for a missing block size, so every value is always sent. */
struct nbdk_connect {
	int index;			/* or NBDK_INDEX_ANY: the lowest free device */
	uint64_t size;			/* bytes, > 0 */
	uint32_t block_size;		/* bytes, a power of two in 512..4096 */
	uint64_t server_flags;		/* transmission flags of the export */
	uint64_t timeout_sec;		/* 0: a slow server is left alone */
	uint64_t dead_conn_timeout_sec;	/* NBDK_DEAD_CONN_FOREVER: I/O waits */
	const char *identifier;		/* shown in sysfs as `backend`; never NULL or empty */
	const int *sockets;
	size_t n_sockets;		/* 1..NBDK_SOCKETS_MAX */
};

/* NBD_CMD_RECONFIGURE that gives sockets in place of dead ones.  A size can never go with
 * sockets: resizing freezes the queue, which dead links keep frozen for ever. */
struct nbdk_reconnect {
	unsigned index;
	/* 0: as it is.  Anything else sets queue/io_timeout too (30 s for NBDK_TIMEOUT_OFF),
	 * which the caller then writes again. */
	uint64_t timeout_sec;
	uint64_t dead_conn_timeout_sec;
	const char *identifier;		/* as at connect, or the kernel says EINVAL */
	const int *sockets;
	size_t n_sockets;
};

/* A generic netlink socket bound to family `nbd`, for one call at a time.  Keep it open
 * while devices are connected: a proposed kernel change disconnects a device when the
 * socket that connected it closes. */
struct nbdk;

/* -ENOENT: no nbd driver, or not the initial network namespace, where alone it is. */
int nbdk_open(struct nbdk **ret);
/* With FD, a socket that an nbdk had in another process.  Taken at 0, else closed. */
int nbdk_open_fd(int fd, struct nbdk **ret);
int nbdk_fd(const struct nbdk *k);
void nbdk_close(struct nbdk *k);

/* The operations behind one seam, so that the daemon's transitions can be tested alone.
 * All give the kernel's errno; -ENOENT: the driver is not there, until it is loaded. */
struct nbdk_ops {
	/* -EBUSY: connected already, or open for a moment (udev): try again. */
	int (*connect)(struct nbdk *k, const struct nbdk_connect *c, unsigned *ret_index);
	/* 0 also when no link was dead and the kernel dropped the sockets. */
	int (*reconnect)(struct nbdk *k, const struct nbdk_reconnect *c);
	/* The timeouts of C alone; its sockets are not looked at. */
	int (*configure)(struct nbdk *k, const struct nbdk_reconnect *c);
	/* SIZE > 0.  Only while links are alive: else it blocks until they are. */
	int (*resize)(struct nbdk *k, unsigned index, const char *identifier,
		      uint64_t size);
	/* Is the device to be disconnected when its last user closes it?  0 only while it is
	 * connected under IDENTIFIER; -EINVAL: it is not. */
	int (*last_close)(struct nbdk *k, unsigned index, const char *identifier,
			  bool disconnects);
	/* Does not flush.  0 for an unconnected device, -EINVAL for none. */
	int (*disconnect)(struct nbdk *k, unsigned index);
	/* True also while all links are dead, or the device is merely open.  -ENODEV. */
	int (*status)(struct nbdk *k, unsigned index, bool *ret_connected);
};
extern const struct nbdk_ops nbdk_kernel_ops;

/* What -R of a failed connect most likely means here, as one sentence; static text. */
const char *nbdk_connect_strerror(int r, const struct nbdk_connect *c);

/* ---- events: link-dead multicast of the driver ------------------------------------- */

struct nbdk_events;
typedef void (*nbdk_link_dead_fn)(unsigned index, void *userdata);

int nbdk_events_open(struct nbdk_events **ret);
void nbdk_events_close(struct nbdk_events *e);
int nbdk_events_fd(const struct nbdk_events *e);	/* readable when events wait */
/* Hand every waiting event to FN; never blocks.  -ENOBUFS: some were lost. */
int nbdk_events_read(struct nbdk_events *e, nbdk_link_dead_fn fn, void *userdata);

/* ---- events: a link came up, an address or route appeared (rtnetlink) --------------- */

struct nbdk_net;
typedef void (*nbdk_net_fn)(const char *what, void *userdata);	/* `eth0: up`, … */

int nbdk_net_open(struct nbdk_net **ret);
void nbdk_net_close(struct nbdk_net *n);
int nbdk_net_fd(const struct nbdk_net *n);
/* Call FN for each change that may make a server reachable; never blocks. */
int nbdk_net_read(struct nbdk_net *n, nbdk_net_fn fn, void *userdata);

/* ---- sysfs ------------------------------------------------------------------------- */

struct nbdk_info {
	bool connected;			/* the attribute `pid` is there */
	int pid;			/* who sent CONNECT; may be gone */
	char backend[NBDK_IDENTIFIER_MAX + 1];
	uint64_t size;			/* bytes */
	bool read_only;
	uint64_t reads, read_bytes, read_usec, writes, write_bytes, write_usec; /* since boot */
	unsigned in_flight;
};

/* -ENOENT: no such device; -ENODEV: no nbd driver.  They wait for nobody. */
int nbdk_sysfs_read(unsigned index, struct nbdk_info *ret);
int nbdk_sysfs_connection(unsigned index, struct nbdk_info *ret);	/* up to `backend` */

/* A descriptor that tells, without opening a file, of the connection's end; -errno. */
int nbdk_life_open(unsigned index);
bool nbdk_life_goes_on(int fd);

/* Write /sys/block/nbdN/queue/NAME, with links alive: newer kernels freeze the queue for it.
 * Who writes there holds a lock until the queue is frozen, which without a link is never, and
 * who reads waits for the lock: both are for processes that may hang. */
int nbdk_queue_set(unsigned index, const char *name, uint64_t value);
int nbdk_queue_get(unsigned index, const char *name, uint64_t *ret);

/* Has nobody opened it since it had done so many requests, one life of it ago?  The kernel
 * reads the partition table before the first open is through.  False also when that is not
 * to be seen.  Reads of the queue's directory, as nbdk_queue_get. */
bool nbdk_never_opened(unsigned index, uint64_t requests);

/* Each existing /dev/nbdN index in ascending order; -errno stops and is returned. */
int nbdk_foreach(int (*fn)(unsigned index, void *userdata), void *userdata);
