/* A device that is detached, or whose links die, in orders of events that a real kernel cannot
 * be made to play. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/adopt.h"
#include "daemon/manager.h"
#include "daemon/outage.h"
#include "daemon/retry.h"
#include "daemon/save.h"
#include "daemon/transitions.h"
#include "lib/util/clock.h"
#include "tests/unit/fake_device.h"
#include "tests/unit/unit.h"

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

static void allow_descriptors(bool more)
{
	struct rlimit limit;

	CHECK_INT(getrlimit(RLIMIT_NOFILE, &limit), 0);
	limit.rlim_cur = more ? limit.rlim_max : 0;
	CHECK_INT(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

/* Attached when there were none, and there are none now. */
static struct device *without_descriptor(struct manager *m)
{
	struct device *d = attached(m, 1);

	retry_now(d);			/* the loop has its timer */
	close(d->life_fd);
	d->life_fd = -1;
	allow_descriptors(false);
	return d;
}

TEST(a_device_is_not_lost_for_want_of_a_descriptor)
{
	struct manager *m = manager();
	struct device *d = without_descriptor(m);

	CHECK_INT(link_still_attached(d), -EMFILE);
	device_event(d, EV_START, NULL);
	CHECK_INT(m->n_devices, 1);
	CHECK_INT(d->links[0].state, LINK_CONNECTING);
}

TEST(a_device_that_cannot_be_looked_at_is_not_said_to_be_detached)
{
	struct manager *m = manager();
	struct device *d = without_descriptor(m);

	detach_ask(d, true);
	CHECK_INT(n_jobs, 0);
	CHECK_INT(m->n_devices, 1);
	CHECK_INT(d->state, STATE_RECONNECTING);
	CHECK(strstr(d->last_error, "Too many open files"));
	allow_descriptors(true);
	d->life_fd = open("/proc/self/comm", O_RDONLY);
	detach_ask(d, true);
	CHECK_INT(n_jobs, 1);		/* DISCONNECT */
	end_job(0, 0);
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

/* To where the flush has ended with ERROR. */
static void detach_flushed(struct device *d, int error)
{
	detach_ask(d, false);
	end_errand(n_errands - 1, 0);		/* nobody has claimed it */
	CHECK_INT(d->state, STATE_DETACHING);
	end_errand(n_errands - 1, error);
}

TEST(a_device_that_cannot_be_flushed_stays)
{
	struct manager *m = manager();
	struct device *d = connected(m, 1);

	detach_flushed(d, -EIO);
	CHECK_INT(d->state, STATE_CONNECTED);
	CHECK_INT(n_jobs, 0);
	CHECK(!d->detach_wanted && strstr(d->last_error, "could not be flushed"));
	/* Asked again, it is tried again. */
	detach_flushed(d, 0);
	CHECK_INT(n_jobs, 1);
	CHECK_INT(asked(0).kind, CALL_LET_GO);
}

TEST(a_device_that_cannot_be_flushed_and_has_been_taken_away_is_gone)
{
	struct manager *m = manager();
	struct device *d = connected(m, 1);

	close(d->life_fd);
	d->life_fd = open("/dev/null", O_RDONLY);
	detach_flushed(d, -EIO);
	CHECK_INT(n_jobs, 1);
	end_job(0, -EINVAL);		/* the kernel knows of none */
	CHECK_INT(m->n_devices, 0);
}

TEST(a_flush_that_does_not_end_leaves_the_rest_to_the_kernel)
{
	struct device *d = connected(manager(), 1);

	detach_flushed(d, -ETIMEDOUT);
	CHECK_INT(n_jobs, 1);
	CHECK_INT(asked(0).kind, CALL_LET_GO);
}

TEST(a_device_that_nobody_has_opened_is_disconnected_without_more_ado)
{
	struct manager *m = manager();
	struct device *d = attached(m, 1);

	detach_ask(d, false);
	end_errand(0, 0);		/* nobody claims it */
	CHECK_INT(asked(0).kind, CALL_LET_GO);
	end_job(0, 0);
	end_errand_with(1, (struct errand_result){ .unused = true });
	CHECK_INT(n_jobs, 2);
	CHECK_INT(asked(1).kind, CALL_DISCONNECT);
	end_job(1, 0);
	CHECK_INT(m->n_devices, 0);
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

TEST(a_device_grows_when_it_has_no_request_in_flight)
{
	struct device *d = connected(manager(), 1);

	d->keys.size_change = CONF_SIZE_GROW;
	replace(d, 0, 2 * MIB);
	end_job(0, 0);
	end_errand(0, 0);		/* a flush and a read */
	n_in_flight = 1;
	CHECK_INT(ask(1), -EAGAIN);
	end_job(1, -EAGAIN);
	CHECK_INT(d->size, MIB);
	CHECK(d->grow_timer);
	CHECK_INT(sd_event_source_set_time(d->grow_timer, now_usec()), 0);
	run(d->manager);
	end_errand(1, 0);
	n_in_flight = 0;
	CHECK_INT(asked(2).size, 2 * MIB);
	end_job(2, 0);
	CHECK_INT(d->size, 2 * MIB);
	CHECK(!d->grow_timer);
}

TEST(a_device_whose_requests_are_not_counted_does_not_grow)
{
	struct device *d = connected(manager(), 1);

	d->keys.size_change = CONF_SIZE_GROW;
	replace(d, 0, 2 * MIB);
	end_job(0, 0);
	end_errand(0, -ENODATA);
	CHECK_INT(n_jobs, 1);
}

/* As the next nbdd finds Unix sockets, on a kernel without unix_diag (fake_device.c). */
static void forget_descriptors(struct device *d)
{
	for (size_t i = 0; i < d->n_links; i++) {
		CHECK_INT(close(d->links[i].fd), 0);
		d->links[i].fd = -1;
	}
}

/* The kernel tells of a death, and it is not to be seen whose. */
static void lose_any(struct device *d)
{
	device_event(d, EV_LINK_DEAD, NULL);
	CHECK(d->doubt_timer);
	CHECK_INT(sd_event_source_set_time(d->doubt_timer, now_usec()), 0);
	run(d->manager);
	CHECK(!d->doubt_timer);
}

TEST(a_connection_that_cannot_be_asked_about_is_dead_when_the_kernel_has_lost_all)
{
	struct device *d = connected(manager(), 2);

	forget_descriptors(d);
	lose_any(d);
	CHECK_INT(d->state, STATE_CONNECTED);	/* either may be the one */
	lose_any(d);
	CHECK_INT(d->state, STATE_RECONNECTING);
	CHECK_INT(d->links[0].state, LINK_CONNECTING);
	CHECK_INT(d->kernel_dead, 2);
	CHECK_INT(d->dead_links, 2);
}

/* ---- the next nbdd -------------------------------------------------------------------- */

static bool saved_as_due(const struct device *d)
{
	struct state s;

	CHECK(save_describe(d, &s));
	return s.timeout_due;
}

TEST(a_timeout_that_the_kernel_may_not_have_is_known_to_the_next_nbdd)
{
	struct device *d = connected(manager(), 1);

	CHECK(!saved_as_due(d));
	d->keys.timeout_usec = 10 * USEC_PER_SEC;
	d->timeout_due = true;
	CHECK(saved_as_due(d));
	CHECK_INT(kernel_configure(d, 0), 0);
	CHECK(saved_as_due(d));		/* of which nobody knows how it ends */
	CHECK_INT(asked(0).timeout_sec, 10);
	end_job(0, 0);
	CHECK(!saved_as_due(d));
}

/* What D leaves, its one connection alive. */
static struct device *adopted(struct device *d)
{
	struct manager *m = d->manager;
	struct state s;
	char error[STATE_ERROR_MAX];
	struct adopt_fds fds = { &d->links[0].fd, 1 };
	struct stat st;

	CHECK(save_describe(d, &s));
	CHECK_INT(fstat(d->links[0].fd, &st), 0);
	s.links[0].sock.inode = st.st_ino;
	s.identifier[0] = '\0';		/* as fake_device.c tells of the kernel's */
	manager_remove(m, d);
	CHECK_INT(adopt_device(m, &s, &fds, error), 0);
	return m->devices[0];
}

TEST(the_next_nbdd_tells_the_kernel_what_this_one_could_not)
{
	struct device *d = connected(manager(), 1);

	d->keys.dead_timeout_usec = 2 * USEC_PER_MINUTE;
	d->timeout_due = true;
	d = adopted(d);
	CHECK_INT(d->state, STATE_CONNECTED);
	CHECK_INT(n_jobs, 1);
	CHECK_INT(asked(0).kind, CALL_CONFIGURE);
	CHECK_INT(asked(0).dead_timeout_sec, 120);
	CHECK_INT(asked(0).timeout_sec, NBDK_TIMEOUT_OFF);
	end_job(0, 0);
	CHECK_INT(n_settings, 1);	/* which a timeout undoes */
	CHECK_INT(n_jobs, 1);
}

/* To tell it resets the queue's interval for a moment. */
TEST(the_next_nbdd_does_not_tell_a_timeout_that_the_kernel_has)
{
	(void)adopted(connected(manager(), 1));
	CHECK_INT(asked(0).timeout_sec, 0);
	CHECK_INT(asked(0).dead_timeout_sec, NBDK_DEAD_CONN_FOREVER);
}
