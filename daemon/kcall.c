#include "daemon/kcall.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/event.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "daemon/save.h"
#include "lib/util/clock.h"

/* Whether requests are in flight; other devices wait for the worker meanwhile. */
#define LOOKS			20
#define LOOK_PAUSE_USEC		500

struct kernel_call {
	struct kjob job;
	struct device *device;		/* NULL: nobody waits any more */
	enum kernel_call_kind kind;
	unsigned index;
	char identifier[NBDK_IDENTIFIER_MAX + 1];
	int sockets[NBDK_SOCKETS_MAX];
	union {
		struct nbdk_connect connect;
		struct nbdk_reconnect reconnect;
		uint64_t size;
	};
};

/* A new size freezes the queue, under locks that every nbd device needs: the freeze waits for all
 * requests in flight, and none may be there that the server never answers.  A busy device is
 * looked at again and again, lest it be missed when there are none for a moment. */
static bool in_flight(unsigned index)
{
	struct nbdk_info info;

	for (int i = 0; i < LOOKS; i++) {
		if (nbdk_sysfs_read(index, &info) == 0 && info.in_flight == 0)
			return false;
		usleep(LOOK_PAUSE_USEC);
	}
	return true;
}

static int call_run(struct kjob *job, struct nbdk *k, const struct nbdk_ops *ops)
{
	struct kernel_call *c = container_of(job, struct kernel_call, job);
	unsigned index;

	switch (c->kind) {
	case CALL_CONNECT:
		return ops->connect(k, &c->connect, &index);
	case CALL_RECONNECT:
		return ops->reconnect(k, &c->reconnect);
	case CALL_CONFIGURE:
		return ops->configure(k, &c->reconnect);
	case CALL_RESIZE:
		return in_flight(c->index) ? -EAGAIN :
			ops->resize(k, c->index, c->identifier, c->size);
	case CALL_LET_GO:
	case CALL_KEEP:
		return ops->last_close(k, c->index, c->identifier, c->kind == CALL_LET_GO);
	case CALL_DISCONNECT:
		return ops->disconnect(k, c->index);
	}
	return -EINVAL;
}

static void call_done(struct kjob *job, int result)
{
	struct kernel_call *c = container_of(job, struct kernel_call, job);
	struct event_detail detail = { .call = c->kind, .error = result };
	struct device *d = c->device;

	detail.size = c->kind == CALL_RESIZE ? c->size : 0;
	free(c);
	if (!d)
		return;
	d->call = NULL;
	device_event(d, result < 0 ? EV_KERNEL_FAILED : EV_KERNEL_DONE, &detail);
}

bool kernel_call_sets_timeout(const struct kernel_call *c)
{
	return c && c->kind == CALL_CONFIGURE && c->reconnect.timeout_sec;
}

void kernel_call_forget(struct kernel_call *c)
{
	if (c)
		c->device = NULL;
}

/* A second call would make the end of the first that of a device which is gone by then. */
static int call_new(struct device *d, enum kernel_call_kind kind, struct kernel_call **ret)
{
	struct kernel_call *c;

	if (d->call) {
		device_log(d, LOG_ERR, "a call of the kernel is under way, and another was to be "
			   "made (a defect of nbdd): not made");
		return -EBUSY;
	}
	c = calloc(1, sizeof(*c));
	if (!c)
		return -ENOMEM;
	c->job = (struct kjob){ .run = call_run, .done = call_done };
	c->device = d;
	c->kind = kind;
	c->index = (unsigned)d->index;
	memcpy(c->identifier, d->identifier, sizeof(c->identifier));
	*ret = c;
	return 0;
}

/* What is about to be asked is written first: after a kill in the middle of it the next
 * daemon finds out whether it was done. */
static int call_submit(struct kernel_call *c)
{
	c->device->call = c;
	save_device(c->device);
	kworker_submit(c->device->manager->worker, &c->job);
	return 0;
}

/* The sockets of the READY links, which are HANDED from now on. */
static size_t hand_links(struct kernel_call *c)
{
	struct device *d = c->device;
	size_t n = 0;

	for (size_t i = 0; i < d->n_links; i++)
		if (d->links[i].state == LINK_READY) {
			d->links[i].state = LINK_HANDED;
			c->sockets[n++] = d->links[i].fd;
		}
	return n;
}

/* The kernel counts whole seconds; a part of one is not cut off. */
static uint64_t whole_seconds(uint64_t usec, uint64_t infinity)
{
	if (usec == USEC_INFINITY)
		return infinity;
	return usec_add(usec, USEC_PER_SEC - 1) / USEC_PER_SEC;
}

static uint64_t timeout_sec(const struct device *d)
{
	return whole_seconds(d->keys.timeout_usec, 0);
}

static uint64_t dead_conn_timeout_sec(uint64_t usec)
{
	return whole_seconds(usec, NBDK_DEAD_CONN_FOREVER);
}

/* What it has done so far; a device that the call will make has done nothing. */
static uint64_t requests_of(unsigned index)
{
	struct nbdk_info info;
	int r = nbdk_sysfs_read(index, &info);

	return r == -ENOENT ? 0 : r < 0 ? UINT64_MAX : info.reads + info.writes;
}

int kernel_connect(struct device *d)
{
	struct kernel_call *c;
	int r = call_new(d, CALL_CONNECT, &c);

	if (r < 0)
		return r;
	d->io_before = requests_of((unsigned)d->index);
	c->connect = (struct nbdk_connect){
		.index = d->index,
		.size = d->size,
		.block_size = d->block_size,
		.server_flags = d->info.flags,
		.timeout_sec = timeout_sec(d),
		.dead_conn_timeout_sec = dead_conn_timeout_sec(d->keys.dead_timeout_usec),
		.identifier = c->identifier,
		.sockets = c->sockets,
		.n_sockets = hand_links(c),
	};
	return call_submit(c);
}

/* The timeout stays what it was: to send it again would reset the queue's interval. */
int kernel_reconnect(struct device *d, uint64_t dead_timeout_usec)
{
	struct kernel_call *c;
	int r = call_new(d, CALL_RECONNECT, &c);

	if (r < 0)
		return r;
	c->reconnect = (struct nbdk_reconnect){
		.index = (unsigned)d->index,
		.dead_conn_timeout_sec = dead_conn_timeout_sec(dead_timeout_usec),
		.identifier = c->identifier,
		.sockets = c->sockets,
		.n_sockets = hand_links(c),
	};
	return call_submit(c);
}

int kernel_configure(struct device *d, uint64_t dead_timeout_usec)
{
	bool timeout = d->timeout_due && device_links_alive(d);	/* it is the queue's */
	struct kernel_call *c;
	int r = call_new(d, CALL_CONFIGURE, &c);

	if (r < 0)
		return r;
	c->reconnect = (struct nbdk_reconnect){
		.index = (unsigned)d->index,
		.timeout_sec = !timeout ? 0 : timeout_sec(d) ? timeout_sec(d) : NBDK_TIMEOUT_OFF,
		.dead_conn_timeout_sec = dead_conn_timeout_sec(dead_timeout_usec),
		.identifier = c->identifier,
	};
	d->timeout_due &= !timeout;
	return call_submit(c);
}

int kernel_resize(struct device *d, uint64_t size)
{
	struct kernel_call *c;
	int r = call_new(d, CALL_RESIZE, &c);

	if (r < 0)
		return r;
	c->size = size;
	return call_submit(c);
}

int kernel_last_close(struct device *d, bool disconnects)
{
	struct kernel_call *c;
	int r = call_new(d, disconnects ? CALL_LET_GO : CALL_KEEP, &c);

	return r < 0 ? r : call_submit(c);
}

int kernel_disconnect(struct device *d)
{
	struct kernel_call *c;
	int r = call_new(d, CALL_DISCONNECT, &c);

	return r < 0 ? r : call_submit(c);
}
