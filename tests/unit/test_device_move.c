/* A device that moves: what is beside test_device.c. */
#include <errno.h>
#include <unistd.h>

#include "daemon/manager.h"
#include "daemon/move.h"
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
