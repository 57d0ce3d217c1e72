/* Events of a device in orders that a real kernel cannot be made to play: the worker is
 * this test, which says when a call of the kernel ends, and how. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/connector.h"
#include "daemon/control.h"
#include "daemon/errand.h"
#include "daemon/event.h"
#include "daemon/fdstore.h"
#include "daemon/kcall.h"
#include "daemon/link.h"
#include "daemon/manager.h"
#include "daemon/move.h"
#include "daemon/news.h"
#include "daemon/retry.h"
#include "daemon/save.h"
#include "daemon/status.h"
#include "daemon/transitions.h"
#include "lib/util/clock.h"
#include "tests/unit/unit.h"

#define JOBS_MAX	16
#define ERRANDS_MAX	16
#define MIB		((uint64_t)1 << 20)

/* ---- what is not there: the linker has the daemon call these ------------------------- */

struct call {
	struct device *device;
	struct errand **slot;		/* NULL: it has ended */
	errand_done_fn done;
};

static struct kjob *jobs[JOBS_MAX];
static struct call errands[ERRANDS_MAX];
static size_t n_jobs, n_errands;

void __wrap_kworker_submit(struct kworker *w, struct kjob *job);
void __wrap_kworker_submit(struct kworker *w, struct kjob *job)
{
	CHECK(n_jobs < JOBS_MAX);
	jobs[n_jobs++] = job;
}

static int start_errand(struct device *d, struct errand **slot, errand_done_fn done)
{
	if (*slot)
		return -EBUSY;
	CHECK(n_errands < ERRANDS_MAX);
	errands[n_errands++] = (struct call){ d, slot, done };
	*slot = (struct errand *)&errands[n_errands - 1];
	return 0;
}

int __wrap_errand_first_read(struct device *d, struct errand **slot, errand_done_fn done);
int __wrap_errand_first_read(struct device *d, struct errand **slot, errand_done_fn done)
{
	return start_errand(d, slot, done);
}

int __wrap_errand_flush(struct device *d, errand_done_fn done);
int __wrap_errand_flush(struct device *d, errand_done_fn done)
{
	return start_errand(d, &d->errand, done);
}

int __wrap_errand_close(struct device *d, errand_done_fn done);
int __wrap_errand_close(struct device *d, errand_done_fn done)
{
	return start_errand(d, &d->errand, done);
}

struct errand *__wrap_errand_cancel(struct errand *e);
struct errand *__wrap_errand_cancel(struct errand *e)
{
	if (e)
		((struct call *)e)->slot = NULL;
	return NULL;
}

void __wrap_errand_settings_due(struct device *d);
void __wrap_errand_settings_due(struct device *d) {}
void __wrap_save_device(struct device *d);
void __wrap_save_device(struct device *d) {}
void __wrap_status_changed(struct manager *m);
void __wrap_status_changed(struct manager *m) {}
void __wrap_news_tell(struct device *d, enum news_kind kind, const char *format, ...);
void __wrap_news_tell(struct device *d, enum news_kind kind, const char *format, ...) {}
void __wrap_fdstore_link(struct link *l);
void __wrap_fdstore_link(struct link *l) {}
bool __wrap_connectors_busy(const struct connectors *all);
bool __wrap_connectors_busy(const struct connectors *all) { return false; }

int __wrap_connector_start(struct connectors *all, const struct connector_spec *spec,
			   struct connector **ret);
int __wrap_connector_start(struct connectors *all, const struct connector_spec *spec,
			   struct connector **ret)
{
	*ret = (struct connector *)all;
	return 0;
}

struct connector *__wrap_connector_cancel(struct connector *c);
struct connector *__wrap_connector_cancel(struct connector *c) { return NULL; }

/* ---- a device ------------------------------------------------------------------------ */

static struct manager *manager(void)
{
	static struct manager m;

	m.worker = (struct kworker *)&m;
	m.connectors = (struct connectors *)&m;
	m.relay_marks = -1;
	CHECK(sd_event_new(&m.event) >= 0);
	return &m;
}

/* Attached, its links dead. */
static struct device *attached(struct manager *m, size_t n_links)
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

/* Link I in STATE, with an export of SIZE bytes behind it; the server's end of its socket. */
static int make_link(struct device *d, size_t i, enum link_state state, uint64_t size)
{
	int pair[2];

	CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
	d->links[i].fd = pair[0];
	d->links[i].state = state;
	d->links[i].info = d->info;
	d->links[i].info.size = size;
	return pair[1];
}

static struct device *connected(struct manager *m, size_t n_links)
{
	struct device *d = attached(m, n_links);

	for (size_t i = 0; i < n_links; i++)
		(void)make_link(d, i, LINK_ALIVE, d->size);
	d->dead_links = d->kernel_dead = 0;
	d->state = STATE_CONNECTED;
	return d;
}

static void run(struct manager *m)
{
	for (int i = 0; i < 5; i++)
		CHECK(sd_event_run(m->event, 20 * USEC_PER_MSEC) >= 0);
}

static void end_job(size_t i, int result)
{
	CHECK(i < n_jobs);
	jobs[i]->done(jobs[i], result);
}

static void end_errand(size_t i, int error)
{
	CHECK(i < n_errands && errands[i].slot);
	*errands[i].slot = NULL;
	errands[i].slot = NULL;
	errands[i].done(errands[i].device, &(struct errand_result){ .error = error });
}

/* ---- a device that is being detached ------------------------------------------------- */

TEST(a_server_that_answers_does_not_disconnect_a_device_twice)
{
	struct manager *m = manager();
	struct device *d = attached(m, 1);

	retry_after_failure(d, FAILURE_SOON);
	d->queued = d->detach_forced = true;
	device_event(d, EV_DETACH, NULL);
	CHECK_INT(d->state, STATE_DETACHING);
	CHECK_INT(n_jobs, 1);
	CHECK(!d->queued && !d->retry_at_usec);
	manager_server_back(m, "10.0.0.1");
	retry_now(d);			/* whoever does it */
	device_event(d, EV_START, NULL);
	run(m);
	CHECK_INT(n_jobs, 1);
	end_job(0, 0);
	CHECK_INT(m->n_devices, 0);
}

TEST(a_server_that_answers_does_not_hurry_the_look_for_holders)
{
	struct manager *m = manager();
	struct device *d = attached(m, 1);

	retry_after_failure(d, FAILURE_SOON);
	device_event(d, EV_DETACH, NULL);
	end_job(0, 0);			/* LET_GO; open and close are under way */
	CHECK_INT(n_errands, 1);
	manager_server_back(m, "10.0.0.1");
	retry_now(d);
	run(m);
	CHECK_INT(n_jobs, 1);
	CHECK_INT(d->state, STATE_DETACHING);
	CHECK(d->errand);
	end_errand(0, -ETIMEDOUT);
	CHECK_INT(n_jobs, 2);		/* KEEP */
	end_job(1, -EINVAL);		/* nobody else had it */
	CHECK_INT(m->n_devices, 0);
}

TEST(a_device_has_one_call_of_the_kernel)
{
	struct device *d = connected(manager(), 1);

	CHECK_INT(kernel_disconnect(d), 0);
	CHECK_INT(kernel_disconnect(d), -EBUSY);
	CHECK_INT(kernel_reconnect(d, 0), -EBUSY);
	CHECK_INT(n_jobs, 1);
	CHECK_INT(d->links[0].state, LINK_ALIVE);
}

/* ---- a device that moves ------------------------------------------------------------- */

static void start_move(struct device *d, enum move_phase phase)
{
	d->keys.dead_timeout_usec = 5 * USEC_PER_SEC;
	CHECK_INT(move_new(d, &d->keys, true, NULL, NULL), 0);
	d->move->phase = phase;
	d->waits_longer = true;
}

TEST(a_detach_at_the_end_of_a_move_finds_the_device_connected)
{
	struct manager *m = manager();
	struct device *d = connected(m, 1);

	start_move(d, MOVE_CHECK);
	d->state = STATE_MOVING;
	d->detach_forced = true;
	device_event(d, EV_DETACH, NULL);
	CHECK_INT(d->state, STATE_MOVING);
	device_event(d, EV_MOVE_CHECKED, NULL);
	CHECK_INT(d->state, STATE_DETACHING);
	CHECK(!d->move);
	device_event(d, EV_LINK_DEAD, &(struct event_detail){ .link = &d->links[0], .text = "t" });
	device_event(d, EV_LINK_DEAD, NULL);
	CHECK_INT(n_jobs, 1);		/* DISCONNECT */
	end_job(0, 0);
	CHECK_INT(m->n_devices, 0);
}

TEST(a_detach_that_gives_a_move_up_makes_one_call)
{
	struct manager *m = manager();
	struct device *d = connected(m, 1);

	start_move(d, MOVE_PREPARE);
	CHECK_INT(kernel_configure(d, MOVE_WAIT_USEC), 0);
	d->detach_forced = true;
	device_event(d, EV_DETACH, NULL);
	end_job(0, 0);
	CHECK_INT(d->state, STATE_DETACHING);
	CHECK(!d->move);
	CHECK_INT(n_jobs, 2);		/* DISCONNECT */
	end_job(1, 0);
	CHECK_INT(m->n_devices, 0);
}
