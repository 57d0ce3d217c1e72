/* A device that moves: what is beside test_device.c. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "daemon/manager.h"
#include "daemon/move.h"
#include "daemon/tls_secrets.h"
#include "lib/util/clock.h"
#include "tests/unit/fake_device.h"
#include "tests/unit/unit.h"

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
	end_errand(0, 0);		/* whether writes are counted */
	end_errand(1, 0);		/* the flush; now the first call stands in the way */
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

static unsigned n_late;

static enum device_state late(struct device *d)
{
	n_late++;
	return d->state;
}

TEST(what_a_move_waited_for_is_nothing_to_it_once_all_its_connections_are_there)
{
	struct device *d = connected(manager(), 1);

	start_move(d, MOVE_JOIN);
	move_again(d, USEC_PER_MSEC, late);	/* for a free connector */
	(void)make_link(d, d->move->links, LINK_READY, d->size);
	device_event(d, EV_CANDIDATE, &(struct event_detail){ .link = d->move->links });
	CHECK_INT(d->move->phase, MOVE_FLUSH);
	run(d->manager);
	CHECK_INT(n_late, 0);
}

TEST(a_move_waits_for_its_turn)
{
	struct manager *m = manager();
	struct device *d = connected(m, 1);

	m->n_resolvers = RESOLVERS_MAX;
	d->keys.tls = CONF_TLS_REQUIRE;
	CHECK_INT(move_new(d, &d->keys, false, NULL, NULL), 0);
	device_event(d, EV_MOVE, NULL);
	CHECK(d->move && d->move->again && d->move->timer);
	m->n_tls_readers = TLS_READERS_MAX;
	d->move->phase = MOVE_CONNECT;
	d->move->target.n_servers = 2;
	device_event(d, EV_CANDIDATE_FAILED, &(struct event_detail){ .text = "t" });
	CHECK(d->move && d->move->timer);
	run(m);
	CHECK(d->move && d->move->timer);
	m->n_tls_readers = m->n_resolvers = 0;
	move_cancel(d, "test");
}

TEST(what_the_old_server_may_not_have_on_disk_is_left_behind_by_force_only)
{
	struct device *d = connected(manager(), 1);

	for (int force = 0; force < 2; force++) {
		start_move(d, MOVE_JOIN);
		d->move->force = force;
		d->move->compares = !force;
		(void)make_link(d, d->move->links, LINK_READY, d->size);
		device_event(d, EV_CANDIDATE, &(struct event_detail){ .link = d->move->links });
		end_errand(n_errands - 1, 0);		/* whether writes are counted */
		end_errand(n_errands - 1, -ETIMEDOUT);	/* the flush */
		CHECK_INT(d->move != NULL, force);
	}
	CHECK(strstr(d->move->warning, "could not be flushed"));
}

/* To where the kernel has been told of the one connection to the new server. */
static void switch_over(struct device *d)
{
	struct link *l = &d->move->links[0];

	d->move->phase = MOVE_JOIN;
	(void)make_link(d, l, LINK_READY, d->size);
	device_event(d, EV_CANDIDATE, &(struct event_detail){ .link = l });
	end_errand(n_errands - 1, 0);		/* whether writes are counted */
	end_errand(n_errands - 1, 0);		/* the flush */
	run(d->manager);
	CHECK_INT(d->state, STATE_MOVING);
	device_event(d, EV_LINK_DEAD, NULL);	/* of the old one */
	CHECK_INT(d->move->phase, MOVE_CHECK);
}

static void fail_check(struct device *d)
{
	size_t n = n_errands;

	end_errand(n - 1, -ETIMEDOUT);
	CHECK_INT(n_errands, n);		/* the kernel may still write */
	device_event(d, EV_LINK_DEAD, NULL);	/* of the new one */
	CHECK_INT(d->state, STATE_MOVING);
	end_errand(n, 0);			/* whether writes are still counted */
	CHECK(!d->move);
	CHECK_INT(d->state, STATE_RECONNECTING);
}

/* One with dead-timeout=infinity, switched over to a server whose keys say 2 min. */
static struct device *on_trial(void)
{
	struct device *d = connected(manager(), 1);
	struct device_keys keys;

	device_keys_init(&keys);
	keys.dead_timeout_usec = 2 * USEC_PER_MINUTE;
	d->keys.dead_timeout_usec = USEC_INFINITY;
	CHECK_INT(move_new(d, &keys, true, NULL, NULL), 0);
	switch_over(d);
	return d;
}

TEST(a_move_that_returns_leaves_io_the_time_that_it_had)
{
	struct device *d = on_trial();

	/* What waits by then keeps what the kernel has at that time. */
	CHECK_INT(asked(0).dead_timeout_sec, NBDK_DEAD_CONN_FOREVER);
	end_job(0, 0);
	fail_check(d);
	CHECK_INT(d->keys.dead_timeout_usec, USEC_INFINITY);
	CHECK_INT(n_jobs, 2);
	CHECK_INT(asked(1).kind, CALL_CONFIGURE);
	CHECK_INT(asked(1).dead_timeout_sec, NBDK_DEAD_CONN_FOREVER);
}

TEST(a_move_that_succeeds_gives_io_the_time_of_its_keys)
{
	struct device *d = on_trial();

	end_job(0, 0);
	end_errand(n_errands - 1, 0);
	CHECK_INT(d->state, STATE_CONNECTED);
	CHECK_INT(n_jobs, 2);
	CHECK_INT(asked(1).kind, CALL_CONFIGURE);
	CHECK_INT(asked(1).dead_timeout_sec, 120);
}

TEST(a_move_stays_with_the_new_server_when_nobody_knows_whether_that_has_written)
{
	struct device *d = on_trial();

	end_job(0, 0);
	end_errand(n_errands - 1, -EIO);
	device_event(d, EV_LINK_DEAD, NULL);
	device_event(d, EV_LINK_DEAD, NULL);
	end_errand(n_errands - 1, -ETIMEDOUT);	/* the queue is locked */
	CHECK_INT(d->keys.dead_timeout_usec, 2 * USEC_PER_MINUTE);
}

TEST(a_move_that_stays_in_spite_of_a_failure_has_its_timeout)
{
	struct device *d = connected(manager(), 1);
	struct device_keys keys;

	device_keys_init(&keys);
	keys.timeout_usec = 30 * USEC_PER_SEC;
	CHECK_INT(move_new(d, &keys, true, NULL, NULL), 0);
	switch_over(d);
	end_job(0, 0);
	n_writes++;				/* the old server lacks it */
	fail_check(d);
	replace(d, 0, MIB);
	end_job(1, 0);
	CHECK_INT(n_jobs, 3);
	CHECK_INT(asked(2).kind, CALL_CONFIGURE);
	CHECK_INT(asked(2).timeout_sec, 30);
}

TEST(a_move_that_stays_counts_an_outage_by_its_own_dead_timeout)
{
	struct device *d = attached(manager(), 1);
	struct device_keys keys;

	device_keys_init(&keys);
	keys.dead_timeout_usec = 2 * USEC_PER_MINUTE;
	d->keys.dead_timeout_usec = USEC_INFINITY;
	outage_begin(d, "test");
	CHECK(!d->dead_timer);
	CHECK_INT(move_new(d, &keys, false, NULL, NULL), 0);
	d->move->phase = MOVE_JOIN;
	(void)make_link(d, d->move->links, LINK_READY, d->size);
	device_event(d, EV_CANDIDATE, &(struct event_detail){ .link = d->move->links });
	end_errand(0, 0);			/* whether writes are counted */
	run(d->manager);
	CHECK_INT(d->move->phase, MOVE_CHECK);
	end_job(0, 0);
	n_writes++;				/* the old server lacks it */
	fail_check(d);
	CHECK(d->dead_timer);
}

/* The next of its addresses is tried. */
static void try_next(struct device *d)
{
	struct target *t = &d->move->target;

	d->move->phase = MOVE_CONNECT;
	t->n_servers = 2;
	t->current = 0;
	link_reset(d->move->links);
	device_event(d, EV_CANDIDATE_FAILED, &(struct event_detail){ .text = "t" });
}

TEST(a_move_finds_out_for_itself_whether_the_kernel_can_do_its_tls)
{
	struct device *d = connected(manager(), 1);
	struct device_keys keys;

	device_keys_init(&keys);
	d->keys.kernel_tls = CONF_KERNEL_TLS_OFF;	/* with the old server */
	CHECK_INT(move_new(d, &keys, true, NULL, NULL), 0);
	try_next(d);
	CHECK_INT(dialled.n, 1);
	dialled.done(&(struct connector_result){ .kernel_tls = "why" }, dialled.userdata);
	CHECK_INT(dialled.n, 2);
	CHECK_STR(d->move->ktls.distrust, "why");
	CHECK_STR(d->ktls.distrust, "");
	switch_over(d);
	end_job(0, 0);
	end_errand(n_errands - 1, 0);
	CHECK_INT(d->state, STATE_CONNECTED);
	CHECK_STR(d->ktls.distrust, "why");
}

TEST(the_kernel_loads_its_ciphers_for_a_move_unless_a_device_is_away)
{
	struct manager *m = manager();
	struct device *d = connected(m, 1), *other = connected(m, 1);

	CHECK_INT(move_new(d, &d->keys, true, NULL, NULL), 0);
	try_next(d);
	CHECK(dialled.tls.load);
	other->state = STATE_RECONNECTING;
	try_next(d);
	CHECK(!dialled.tls.load);
	other->state = STATE_CONNECTED;
	try_next(d);
	CHECK(dialled.tls.load);
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

/* ---- what else happens meanwhile ------------------------------------------------------ */

static void move_to(struct device *d, uint64_t size)
{
	d->keys.size_change = CONF_SIZE_GROW;
	CHECK_INT(move_new(d, &d->keys, true, NULL, NULL), 0);
	d->move->phase = MOVE_JOIN;
	(void)make_link(d, &d->move->links[0], LINK_READY, size);
}

TEST(a_device_does_not_grow_while_it_moves_to_a_server_of_its_size)
{
	struct device *d = connected(manager(), 1);

	move_to(d, MIB);
	replace(d, 0, 2 * MIB);		/* the old server's */
	end_job(0, 0);
	CHECK_INT(d->state, STATE_CONNECTED);
	CHECK_INT(n_errands, 0);
	/* Given up, it grows after all. */
	move_cancel(d, "test");
	CHECK_INT(n_errands, 1);
	end_errand(0, 0);
	CHECK_INT(n_jobs, 2);
	CHECK_INT(asked(1).size, 2 * MIB);
}

TEST(a_read_from_before_does_not_grow_a_device_that_moves)
{
	struct device *d = connected(manager(), 1);

	d->keys.size_change = CONF_SIZE_GROW;
	replace(d, 0, 2 * MIB);
	end_job(0, 0);
	CHECK_INT(n_errands, 1);	/* the read that precedes growing */
	move_to(d, MIB);
	end_errand(0, 0);
	CHECK_INT(n_jobs, 1);
	device_event(d, EV_CANDIDATE, &(struct event_detail){ .link = d->move->links });
	end_errand(1, 0);		/* whether writes are counted */
	end_errand(2, 0);		/* the flush */
	run(d->manager);
	device_event(d, EV_LINK_DEAD, NULL);
	end_job(1, 0);
	end_errand(3, 0);		/* the first read */
	CHECK_INT(d->state, STATE_CONNECTED);
	CHECK_INT(d->size, MIB);
	CHECK_INT(n_jobs, 2);
}

TEST(a_device_that_has_grown_meanwhile_does_not_move_to_a_smaller_export)
{
	struct device *d = connected(manager(), 1);

	CHECK_INT(kernel_resize(d, 2 * MIB), 0);
	move_to(d, MIB);
	device_event(d, EV_CANDIDATE, &(struct event_detail){ .link = d->move->links });
	end_errand(0, 0);		/* whether writes are counted */
	end_errand(1, 0);		/* the flush */
	end_job(0, 0);
	CHECK_INT(d->size, 2 * MIB);
	run(d->manager);
	CHECK_INT(d->state, STATE_CONNECTED);
	CHECK(!d->move);
}

/* One without its server, on its way to another: the last of the candidates has come. */
static struct device *moves_while_out(bool force)
{
	struct device *d = attached(manager(), 1);

	CHECK_INT(move_new(d, &d->keys, force, NULL, NULL), 0);
	d->move->phase = MOVE_JOIN;
	(void)make_link(d, d->move->links, LINK_READY, d->size);
	return d;
}

TEST(a_move_that_began_without_a_server_ends_when_that_is_back)
{
	struct device *d = moves_while_out(false);

	replace(d, 0, MIB);
	CHECK(d->move);			/* the kernel has not taken it yet */
	device_event(d, EV_CANDIDATE, &(struct event_detail){ .link = d->move->links });
	end_errand(0, 0);		/* whether writes are counted */
	run(d->manager);		/* it waits for that call */
	end_job(0, 0);
	CHECK(!d->move);
	CHECK_INT(d->state, STATE_CONNECTED);
	CHECK_INT(d->links[0].state, LINK_ALIVE);
}

TEST(a_forced_move_flushes_a_server_that_is_back_before_the_switch)
{
	struct device *d = moves_while_out(true);

	device_event(d, EV_CANDIDATE, &(struct event_detail){ .link = d->move->links });
	end_errand(0, 0);		/* whether writes are counted */
	replace(d, 0, MIB);
	run(d->manager);		/* it waits for that call */
	end_job(0, 0);
	run(d->manager);
	CHECK_INT(d->move->phase, MOVE_FLUSH);
	end_errand(1, 0);		/* whether writes are counted */
	CHECK_INT(d->links[0].state, LINK_ALIVE);
	end_errand(2, 0);		/* the flush */
	run(d->manager);
	CHECK_INT(d->state, STATE_MOVING);
}

TEST(a_device_that_is_gone_is_not_looked_at_by_its_move)
{
	struct manager *m = manager();
	struct device *d = attached(m, 1);

	move_to(d, MIB);
	close(d->life_fd);
	d->life_fd = open("/dev/null", O_RDONLY);	/* another program has disconnected it */
	device_event(d, EV_CANDIDATE, &(struct event_detail){ .link = d->move->links });
	end_errand(0, 0);		/* whether writes are counted */
	run(m);			/* a sanitizer sees it */
	CHECK_INT(m->n_devices, 0);
}

TEST(one_connection_is_enough_to_set_the_queue_back)
{
	struct device *d = attached(manager(), 2);

	d->settings_due = d->waits_longer = true;	/* by a move that went back */
	replace(d, 0, MIB);
	end_job(0, 0);
	CHECK_INT(d->state, STATE_DEGRADED);
	CHECK_INT(n_settings, 1);
}

TEST(one_connection_is_enough_for_another_dead_timeout)
{
	struct device *d = attached(manager(), 2);

	replace(d, 0, MIB);
	d->keys.dead_timeout_usec = USEC_PER_MINUTE;	/* a reload, meanwhile */
	d->waits_longer = true;
	end_job(0, 0);
	CHECK_INT(d->state, STATE_DEGRADED);
	CHECK_INT(n_jobs, 2);
	CHECK_INT(asked(1).dead_timeout_sec, 60);
}
