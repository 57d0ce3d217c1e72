/* The settings of many queues, which children make. */
#include <errno.h>

#include "daemon/child.h"
#include "daemon/manager.h"
#include "daemon/move.h"
#include "daemon/transitions.h"
#include "tests/unit/fake_device.h"
#include "tests/unit/unit.h"

#define DEVICES		100
#define AT_A_TIME	32

static struct {
	char what[16];
	child_done_fn done;
	void *userdata;
} children[DEVICES];
static size_t n_children;

__typeof__(child_start) __wrap_child_start;
__typeof__(child_cancel) __wrap_child_cancel;

int __wrap_child_start(sd_event *event, const struct child_spec *s, child_done_fn done,
		       void *userdata, struct child **ret)
{
	CHECK(n_children < DEVICES);
	snprintf(children[n_children].what, sizeof(children->what), "%s", s->what);
	children[n_children].done = done;
	children[n_children].userdata = userdata;
	*ret = (void *)&children[n_children++];
	return 0;
}

struct child *__wrap_child_cancel(struct child *c)
{
	return NULL;
}

static void end_child(size_t i, int error)
{
	struct errand_result result = { .error = error };

	CHECK(i < n_children);
	children[i].done(&(struct child_answer){ .data = &result, .len = sizeof(result),
						 .fd = -1 }, children[i].userdata);
}

TEST(queues_are_set_up_a_few_at_a_time)
{
	struct manager *m = manager();

	for (int i = 0; i < DEVICES; i++) {
		struct device *d = connected(m, 1);

		d->settings_due = true;
		links_restore(d);
	}
	CHECK_INT(n_children, AT_A_TIME);
	CHECK(strncmp(children[0].what, "queue nbd", 9) == 0);
	for (size_t i = 0; i < n_children; i++) {
		CHECK(n_children - i <= AT_A_TIME);
		end_child(i, i % 2 ? -EIO : 0);
	}
	CHECK_INT(n_children, DEVICES);		/* each once, whatever came of the others */
	for (size_t i = 0; i < DEVICES; i++)
		CHECK_INT(m->devices[i]->settings_due, i % 2);
}

TEST(what_a_move_has_set_for_itself_is_left_while_other_queues_are_set_up)
{
	struct manager *m = manager();
	struct device *first = connected(m, 1), *moves = connected(m, 1);

	first->settings_due = moves->settings_due = true;
	links_restore(first);
	CHECK_INT(move_new(moves, &moves->keys, true, NULL, NULL), 0);
	end_child(0, 0);
	CHECK_INT(n_children, 1);
}

TEST(what_a_reload_changes_while_a_queue_is_set_up_is_set_afterwards)
{
	struct device *d = connected(manager(), 1);

	d->settings_due = true;
	links_restore(d);
	for (int i = 0; i < 2; i++) {
		d->settings_due = true;		/* a reload */
		links_restore(d);
		CHECK_INT(n_children, i + 1);
		end_child(i, i ? -EIO : 0);
		CHECK_INT(n_children, i + 2);
	}
	end_child(2, 0);
	CHECK_INT(n_children, 3);
	CHECK(!d->settings_due);
}

TEST(what_a_reload_changes_while_a_device_is_attached_is_set_afterwards)
{
	struct device *d = connected(manager(), 1);

	d->state = STATE_ATTACHING;
	device_event(d, EV_KERNEL_DONE, &(struct event_detail){ .call = CALL_CONNECT });
	CHECK_INT(n_children, 1);
	d->settings_due = true;			/* a reload */
	links_restore(d);
	CHECK_INT(n_children, 1);
	end_child(0, 0);
	CHECK_INT(n_children, 2);
}
