#include "tests/unit/fake_device.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/connector.h"
#include "daemon/fdstore.h"
#include "daemon/manager.h"
#include "daemon/news.h"
#include "daemon/save.h"
#include "daemon/status.h"
#include "lib/util/clock.h"
#include "tests/unit/unit.h"

#define JOBS_MAX	16

/* ---- what is not there: the linker has the daemon call these ------------------------- */

#define FAKE(type, name, ...)			\
	type __wrap_##name(__VA_ARGS__);	\
	type __wrap_##name(__VA_ARGS__)

static struct kjob *jobs[JOBS_MAX];
struct fake_errand errands[ERRANDS_MAX];
struct fake_dial dialled;
size_t n_jobs, n_errands, n_settings;

FAKE(void, kworker_submit, struct kworker *w, struct kjob *job)
{
	CHECK(n_jobs < JOBS_MAX);
	jobs[n_jobs++] = job;
}

static int start_errand(struct device *d, struct errand **slot, errand_done_fn done)
{
	if (*slot)
		return -EBUSY;
	CHECK(n_errands < ERRANDS_MAX);
	errands[n_errands++] = (struct fake_errand){ d, slot, done };
	*slot = (struct errand *)&errands[n_errands - 1];
	return 0;
}

FAKE(int, errand_first_read, struct device *d, struct errand **slot, errand_done_fn done)
{
	return start_errand(d, slot, done);
}

FAKE(int, errand_before_growing, struct device *d, errand_done_fn done)
{
	return start_errand(d, &d->errand, done);
}

FAKE(int, errand_flush, struct device *d, errand_done_fn done)
{
	return start_errand(d, &d->errand, done);
}

FAKE(int, errand_close, struct device *d, errand_done_fn done)
{
	return start_errand(d, &d->errand, done);
}

FAKE(int, errand_hasten, struct device *d, struct errand **slot, errand_done_fn done)
{
	return start_errand(d, slot, done);
}

FAKE(int, errand_counts, struct device *d, struct errand **slot, errand_done_fn done)
{
	return start_errand(d, slot, done);
}

FAKE(int, errand_claim, struct device *d, errand_done_fn done)
{
	return start_errand(d, &d->claim, done);
}

FAKE(struct errand *, errand_cancel, struct errand *e)
{
	if (e)
		((struct fake_errand *)e)->slot = NULL;
	return NULL;
}

FAKE(void, errand_settings_due, struct device *d) { n_settings += d->settings_due; }
FAKE(void, save_device, struct device *d) {}
FAKE(int, save_server, struct device *d) { return 0; }
FAKE(void, status_changed, struct manager *m) {}
FAKE(void, news_tell, struct device *d, enum news_kind kind, const char *format, ...) {}
FAKE(void, fdstore_link, struct link *l) {}
FAKE(bool, connectors_busy, const struct connectors *all) { return false; }

FAKE(int, connector_start, struct connectors *all, const struct connector_spec *spec,
     struct connector **ret)
{
	dialled = (struct fake_dial){ dialled.n + 1, *spec->tls, spec->done, spec->userdata };
	*ret = (struct connector *)all;
	return 0;
}

FAKE(struct connector *, connector_cancel, struct connector *c) { return NULL; }

uint64_t n_writes;
unsigned n_in_flight;

FAKE(int, nbdk_sysfs_read, unsigned index, struct nbdk_info *ret)
{
	*ret = (struct nbdk_info){ .connected = true, .writes = n_writes,
				   .in_flight = n_in_flight };
	return 0;
}

/* Of a socket that we have no descriptor of this kernel knows nothing. */
FAKE(int, nbdk_diag_ask, struct nbdk_diag *diag, const struct nbdk_sock *s,
     struct nbdk_sock_info *ret)
{
	*ret = (struct nbdk_sock_info){ .alive = true };
	return 0;
}

FAKE(int, nbdk_diag_abort, struct nbdk_diag *diag, const struct nbdk_sock *s)
{
	return -EOPNOTSUPP;
}

/* ---- a device ------------------------------------------------------------------------ */

struct manager *manager(void)
{
	static struct manager m;

	m.worker = (struct kworker *)&m;
	m.connectors = (struct connectors *)&m;
	m.relay_marks = -1;
	CHECK(sd_event_new(&m.event) >= 0);
	return &m;
}

struct device *attached(struct manager *m, size_t n_links)
{
	struct device_keys keys;
	struct device *d;
	struct server *s;
	struct sockaddr_in *a;

	device_keys_init(&keys);
	CHECK_INT(device_new(m, "x", 5, true, &keys, &d), 0);
	CHECK_INT(manager_add(m, d), 0);
	d->n_links = n_links;
	d->life_fd = open("/proc/self/comm", O_RDONLY);	/* as long as it can be read */
	d->size = d->info.size = MIB;
	d->block_size = 512;
	d->state = STATE_RECONNECTING;
	d->dead_links = d->kernel_dead = (unsigned)n_links;
	s = &d->target.servers[d->target.n_servers++];
	snprintf(s->host, sizeof(s->host), "10.0.0.1");
	snprintf(s->label, sizeof(s->label), "10.0.0.1");
	s->addresses = calloc(1, sizeof(*s->addresses));
	s->n_addresses = 1;
	a = (struct sockaddr_in *)&s->addresses->addr;
	a->sin_family = AF_INET;
	a->sin_port = htons(10809);
	s->addresses->len = sizeof(*a);
	return d;
}

int make_link(struct device *d, struct link *l, enum link_state state, uint64_t size)
{
	int pair[2];

	CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
	l->fd = pair[0];
	l->state = state;
	l->info = d->info;
	l->info.size = size;
	return pair[1];
}

struct device *connected(struct manager *m, size_t n_links)
{
	struct device *d = attached(m, n_links);

	for (size_t i = 0; i < n_links; i++)
		(void)make_link(d, &d->links[i], LINK_ALIVE, d->size);
	d->dead_links = d->kernel_dead = 0;
	d->state = STATE_CONNECTED;
	return d;
}

void replace(struct device *d, size_t i, uint64_t size)
{
	struct event_detail dead = { .link = &d->links[i], .text = "t" };

	if (d->links[i].state == LINK_ALIVE) {
		device_event(d, EV_LINK_DEAD, &dead);
		device_event(d, EV_LINK_DEAD, NULL);
	}
	(void)make_link(d, &d->links[i], LINK_READY, size);
	device_event(d, EV_SOCKET, &(struct event_detail){ .link = &d->links[i] });
}

void run(struct manager *m)
{
	for (int i = 0; i < 5; i++)
		CHECK(sd_event_run(m->event, 20 * USEC_PER_MSEC) >= 0);
}

/* ---- what the kernel is asked --------------------------------------------------------- */

static struct fake_call seen;

static int see_reconnect(struct nbdk *k, const struct nbdk_reconnect *c)
{
	seen = (struct fake_call){ CALL_RECONNECT, c->dead_conn_timeout_sec, c->timeout_sec };
	return 0;
}

static int see_configure(struct nbdk *k, const struct nbdk_reconnect *c)
{
	seen = (struct fake_call){ CALL_CONFIGURE, c->dead_conn_timeout_sec, c->timeout_sec };
	return 0;
}

static int see_resize(struct nbdk *k, unsigned index, const char *identifier, uint64_t size)
{
	seen = (struct fake_call){ .kind = CALL_RESIZE, .size = size };
	return 0;
}

static int see_last_close(struct nbdk *k, unsigned index, const char *identifier,
			  bool disconnects)
{
	seen = (struct fake_call){ .kind = disconnects ? CALL_LET_GO : CALL_KEEP };
	return 0;
}

static int see_disconnect(struct nbdk *k, unsigned index)
{
	seen = (struct fake_call){ .kind = CALL_DISCONNECT };
	return 0;
}

int ask(size_t i)
{
	static const struct nbdk_ops ops = {
		.reconnect = see_reconnect, .configure = see_configure, .resize = see_resize,
		.last_close = see_last_close, .disconnect = see_disconnect };

	CHECK(i < n_jobs);
	return jobs[i]->run(jobs[i], NULL, &ops);
}

struct fake_call asked(size_t i)
{
	CHECK_INT(ask(i), 0);
	return seen;
}

void end_job(size_t i, int result)
{
	CHECK(i < n_jobs);
	jobs[i]->done(jobs[i], result);
}

void end_errand_with(size_t i, struct errand_result result)
{
	CHECK(i < n_errands && errands[i].slot);
	*errands[i].slot = NULL;
	errands[i].slot = NULL;
	errands[i].done(errands[i].device, &result);
}

void end_errand(size_t i, int error)
{
	end_errand_with(i, (struct errand_result){ .error = error });
}

bool cut(int fd)
{
	char byte;

	return read(fd, &byte, 1) == 0;
}
