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

#define FAKE(type, name, ...)			\
	type __wrap_##name(__VA_ARGS__);	\
	type __wrap_##name(__VA_ARGS__)

struct call {
	struct device *device;
	struct errand **slot;		/* NULL: it has ended */
	errand_done_fn done;
};

static struct kjob *jobs[JOBS_MAX];
static struct call errands[ERRANDS_MAX];
static size_t n_jobs, n_errands;

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
	errands[n_errands++] = (struct call){ d, slot, done };
	*slot = (struct errand *)&errands[n_errands - 1];
	return 0;
}

FAKE(int, errand_first_read, struct device *d, struct errand **slot, errand_done_fn done)
{
	return start_errand(d, slot, done);
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

FAKE(int, errand_claim, struct device *d, errand_done_fn done)
{
	return start_errand(d, &d->claim, done);
}

FAKE(struct errand *, errand_cancel, struct errand *e)
{
	if (e)
		((struct call *)e)->slot = NULL;
	return NULL;
}

FAKE(void, errand_settings_due, struct device *d) {}
FAKE(void, save_device, struct device *d) {}
FAKE(void, status_changed, struct manager *m) {}
FAKE(void, news_tell, struct device *d, enum news_kind kind, const char *format, ...) {}
FAKE(void, fdstore_link, struct link *l) {}
FAKE(bool, connectors_busy, const struct connectors *all) { return false; }

FAKE(int, connector_start, struct connectors *all, const struct connector_spec *spec,
     struct connector **ret)
{
	*ret = (struct connector *)all;
	return 0;
}

FAKE(struct connector *, connector_cancel, struct connector *c) { return NULL; }

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

/* L in STATE, with an export of SIZE bytes behind it; the server's end of its socket. */
static int make_link(struct device *d, struct link *l, enum link_state state, uint64_t size)
{
	int pair[2];

	CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
	l->fd = pair[0];
	l->state = state;
	l->info = d->info;
	l->info.size = size;
	return pair[1];
}

static struct device *connected(struct manager *m, size_t n_links)
{
	struct device *d = attached(m, n_links);

	for (size_t i = 0; i < n_links; i++)
		(void)make_link(d, &d->links[i], LINK_ALIVE, d->size);
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

TEST(a_device_that_another_program_has_attached_again_is_left_alone)
{
	struct manager *m = manager();
	struct device *d = attached(m, 1);

	close(d->life_fd);
	d->life_fd = open("/dev/null", O_RDONLY);	/* as `pid` of a device that is gone */
	detach_ask(d, true);
	CHECK_INT(n_jobs, 0);
	CHECK_INT(m->n_devices, 0);
}

TEST(a_detach_that_is_refused_leaves_no_connection_that_nobody_uses)
{
	struct device *d = attached(manager(), 1);

	d->kernel_dead = 0;		/* so that it waits for the kernel */
	(void)make_link(d, &d->links[0], LINK_READY, d->size);
	device_event(d, EV_SOCKET, &(struct event_detail){ .link = &d->links[0] });
	device_event(d, EV_DETACH, NULL);
	device_event(d, EV_LINK_DEAD, NULL);
	end_job(0, -EPERM);		/* LET_GO */
	CHECK_INT(d->state, STATE_RECONNECTING);
	CHECK_INT(d->links[0].state, LINK_IDLE);
	CHECK(d->retry_at_usec);
}

TEST(an_outage_ends_although_a_detach_was_refused_meanwhile)
{
	struct device *d = attached(manager(), 1);

	outage_begin(d, "test");
	(void)make_link(d, &d->links[0], LINK_READY, d->size);
	device_event(d, EV_SOCKET, &(struct event_detail){ .link = &d->links[0] });
	device_event(d, EV_DETACH, NULL);
	end_job(0, 0);			/* RECONFIGURE */
	CHECK_INT(d->state, STATE_DETACHING);
	end_errand(0, 0);		/* the flush */
	end_job(1, -EPERM);		/* LET_GO */
	CHECK_INT(d->state, STATE_CONNECTED);
	CHECK_INT(d->outages.began_usec, 0);
}

TEST(an_outage_that_is_timed_anew_is_timed_once)
{
	struct manager *m = manager();
	struct device *d = attached(m, 1);

	d->keys.dead_timeout_usec = USEC_PER_MSEC;
	outage_begin(d, "test");
	outage_resume(d);
	outage_end(d);
	run(m);
	CHECK_INT(d->state, STATE_RECONNECTING);
}

static unsigned n_ended;

static void on_end(struct device *d, const struct errand_result *result)
{
	n_ended++;
}

TEST(a_detach_that_is_refused_has_stopped_nothing)
{
	struct device *d = connected(manager(), 1);

	CHECK_INT(errand_first_read(d, &d->errand, on_end), 0);	/* or what attach does */
	detach_ask(d, false);
	detach_ask(d, false);		/* two who ask, one look */
	CHECK_INT(n_errands, 2);
	end_errand(1, -EBUSY);
	CHECK_INT(d->state, STATE_CONNECTED);
	CHECK(!d->detach_wanted);
	end_errand(0, 0);
	CHECK_INT(n_ended, 1);
}

TEST(a_forced_detach_stays_forced)
{
	struct device *d = connected(manager(), 1);

	CHECK_INT(kernel_configure(d, 0), 0);
	detach_ask(d, false);
	detach_ask(d, true);
	CHECK(!errands[0].slot);	/* nobody is told that it is held */
	detach_ask(d, false);
	CHECK(d->detach_forced);
	CHECK_INT(n_errands, 1);
	end_job(0, 0);
	CHECK_INT(d->state, STATE_DETACHING);
	CHECK_INT(n_jobs, 2);		/* DISCONNECT: no flush before */
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

TEST(a_call_from_before_does_not_end_the_preparation_of_a_move)
{
	struct manager *m = manager();
	struct device *d = connected(m, 1);
	struct link *l;

	CHECK_INT(kernel_configure(d, 0), 0);
	start_move(d, MOVE_JOIN);
	l = &d->move->links[0];
	(void)make_link(d, l, LINK_READY, d->size);
	device_event(d, EV_CANDIDATE, &(struct event_detail){ .link = l });
	end_errand(0, 0);		/* the flush; now the first call stands in the way */
	end_job(0, 0);
	CHECK_INT(d->state, STATE_CONNECTED);
	run(m);
	CHECK_INT(n_jobs, 2);		/* CONFIGURE with the longer dead-timeout */
	CHECK_INT(d->move->phase, MOVE_PREPARE);
	end_job(1, 0);
	CHECK_INT(d->state, STATE_MOVING);
	CHECK_INT(d->move->phase, MOVE_SWITCH);
	CHECK(!d->move->timer);
}

/* Of blocks that were written meanwhile; the first was with 10.0.0.2. */
static void second_round(struct device *d, enum device_event event, const char *peer)
{
	start_move(d, MOVE_CONNECT);
	d->move->round = 1;
	d->move->target.n_servers = 2;
	memcpy(d->move->peer, "10.0.0.2", 9);
	(void)make_link(d, &d->move->links[0], LINK_READY, d->size);
	memcpy(d->move->links[0].peer, peer, strlen(peer) + 1);
	device_event(d, event, &(struct event_detail){ .link = d->move->links, .text = "t" });
}

TEST(a_move_compares_with_one_server)
{
	struct device *d = connected(manager(), 1);

	second_round(d, EV_CANDIDATE, "10.0.0.3");
	CHECK(!d->move);
	second_round(d, EV_CANDIDATE_FAILED, "");
	CHECK(!d->move);
	second_round(d, EV_CANDIDATE, "10.0.0.2");
	CHECK(d->move);
}

/* Has the other end of FD been shut down, not merely closed here? */
static bool cut(int fd)
{
	char byte;

	return read(fd, &byte, 1) == 0;
}

TEST(a_move_whose_call_failed_cuts_what_the_kernel_may_have_taken)
{
	struct device *d = connected(manager(), 1);
	int peer, taken;

	start_move(d, MOVE_CHECK);
	d->state = STATE_MOVING;
	d->dead_links = d->kernel_dead = 1;
	peer = make_link(d, &d->links[0], LINK_READY, d->size);
	taken = dup(d->links[0].fd);
	CHECK_INT(kernel_reconnect(d, 0), 0);
	end_job(0, -EIO);
	CHECK(taken >= 0 && cut(peer));
	CHECK_INT(d->state, STATE_MOVING);	/* until the kernel has told of that death */
	device_event(d, EV_LINK_DEAD, NULL);
	CHECK_INT(d->state, STATE_RECONNECTING);
}

/* ---- a device whose links die -------------------------------------------------------- */

TEST(a_connection_that_the_kernel_may_have_taken_is_cut_when_its_call_fails)
{
	struct device *d = attached(manager(), 1);
	int peer = make_link(d, &d->links[0], LINK_READY, d->size);
	int taken = dup(d->links[0].fd);	/* the kernel's */

	device_event(d, EV_SOCKET, &(struct event_detail){ .link = &d->links[0] });
	end_job(0, -EIO);
	CHECK(taken >= 0 && cut(peer));
	CHECK_INT(d->links[0].state, LINK_IDLE);
	CHECK_INT(d->kernel_dead, 0);
}

/* Link I dies, and a new connection is told of SIZE. */
static void replace(struct device *d, size_t i, uint64_t size)
{
	device_event(d, EV_LINK_DEAD, &(struct event_detail){ .link = &d->links[i], .text = "t" });
	device_event(d, EV_LINK_DEAD, NULL);
	(void)make_link(d, &d->links[i], LINK_READY, size);
	device_event(d, EV_SOCKET, &(struct event_detail){ .link = &d->links[i] });
}

TEST(a_resize_ends_with_the_size_that_was_asked_for)
{
	struct device *d = connected(manager(), 1);

	d->keys.size_change = CONF_SIZE_GROW;
	CHECK_INT(kernel_resize(d, 2 * MIB), 0);
	replace(d, 0, MIB);
	end_job(0, 0);
	CHECK_INT(d->size, 2 * MIB);
	/* The connection that came meanwhile does not do. */
	CHECK_INT(d->links[0].state, LINK_IDLE);
	CHECK_INT(n_jobs, 1);
	CHECK(d->retry_at_usec);
}

TEST(a_device_grows_when_every_connection_is_told_of_it)
{
	struct device *d = connected(manager(), 2);

	d->keys.size_change = CONF_SIZE_GROW;
	replace(d, 0, 2 * MIB);
	end_job(0, 0);
	CHECK_INT(d->state, STATE_CONNECTED);
	CHECK_INT(n_errands, 0);
	replace(d, 1, 3 * MIB);
	end_job(1, 0);
	end_errand(0, 0);		/* a first read */
	CHECK_INT(n_jobs, 3);
	end_job(2, 0);
	CHECK_INT(d->size, 2 * MIB);
}
