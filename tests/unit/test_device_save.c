/* What is on file of a device when it goes to another server and the directory is full. */
#include <arpa/inet.h>
#include <errno.h>
#include <unistd.h>

#include "daemon/manager.h"
#include "daemon/move.h"
#include "daemon/save.h"
#include "daemon/store.h"
#include "daemon/warrant.h"
#include "tests/unit/fake_device.h"
#include "tests/unit/unit.h"

/* ---- what is not there: the linker has the daemon call these ------------------------- */

#define FAKE(type, name, ...)			\
	type __wrap_##name(__VA_ARGS__);	\
	type __wrap_##name(__VA_ARGS__)

static struct {
	char text[8192];		/* empty: there is none */
	bool full, stuck;		/* nothing can be written; nor removed */
	bool full_after_all;		/* … nor when its room is free */
} file;

FAKE(void, warrant_keep, struct device *d) {}
FAKE(void, warrant_forget, struct device *d) {}

FAKE(int, store_open, const char *dir, const struct owners *owners, struct store **ret)
{
	*ret = (struct store *)&file;
	return 0;
}

FAKE(int, store_write, struct store *s, const char *name, const char *text, size_t len,
     struct store_file **f)
{
	if (file.full && (file.text[0] || file.full_after_all))
		return -ENOSPC;
	CHECK(len < sizeof(file.text));
	memcpy(file.text, text, len + 1);
	*f = (struct store_file *)&file;
	return 0;
}

FAKE(int, store_remove, struct store *s, const char *name, struct store_file *f)
{
	if (file.stuck)
		return -EROFS;
	file.text[0] = '\0';
	return 1;
}

FAKE(void, store_file_free, struct store_file *f) {}

/* ---- a device with two servers ------------------------------------------------------- */

static void add_server(struct target *t, const char *host)
{
	struct server *s = &t->servers[t->n_servers++];
	struct sockaddr_in *a;

	snprintf(s->host, sizeof(s->host), "%s", host);
	snprintf(s->label, sizeof(s->label), "%s", host);
	s->addresses = calloc(1, sizeof(*s->addresses));
	s->n_addresses = 1;
	s->addresses->len = sizeof(*a);
	a = (struct sockaddr_in *)&s->addresses->addr;
	a->sin_family = AF_INET;
	CHECK_INT(inet_pton(AF_INET, host, &a->sin_addr), 1);
}

static struct device *make(void)
{
	struct device *d = attached(manager(), 1);

	d->target.export_name = strdup("e");
	add_server(&d->target, "10.0.0.2");
	save_device(d);
	CHECK(strstr(file.text, "\"current\":0"));
	return d;
}

/* A connection with D's server SERVER has come. */
static void answer(struct device *d, size_t server)
{
	d->target.current = server;
	(void)make_link(d, &d->links[0], LINK_READY, d->size);
	device_event(d, EV_SOCKET, &(struct event_detail){ .link = &d->links[0] });
}

TEST(a_connection_with_the_server_on_file_is_taken_although_nothing_can_be_written)
{
	struct device *d = make();

	file.full = true;
	answer(d, 0);
	CHECK(d->save_error < 0);
	CHECK(strstr(file.text, "\"current\":0"));
	end_job(0, 0);
	CHECK_INT(d->state, STATE_CONNECTED);
}

TEST(another_server_is_on_file_before_the_kernel_has_a_connection_with_it)
{
	struct device *d = make();

	file.full = true;
	answer(d, 1);
	CHECK_INT(n_jobs, 1);
	CHECK(strstr(file.text, "\"current\":1"));	/* in the room of the first */
	end_job(0, 0);
	CHECK_INT(d->state, STATE_CONNECTED);
}

TEST(a_file_that_names_the_earlier_server_is_removed_when_it_cannot_be_written)
{
	struct device *d = make();

	file.full = file.full_after_all = true;
	answer(d, 1);
	CHECK_INT(n_jobs, 1);
	CHECK_STR(file.text, "");
	CHECK(d->save_error < 0);
	file.full = false;
	end_job(0, 0);
	CHECK(strstr(file.text, "\"current\":1"));
}

TEST(a_file_that_cannot_be_removed_keeps_the_device_waiting)
{
	struct device *d = make();

	file.full = file.stuck = true;
	answer(d, 1);
	CHECK_INT(n_jobs, 0);
	CHECK_INT(d->state, STATE_RECONNECTING);
	CHECK_INT(d->links[0].state, LINK_IDLE);
	CHECK(d->retry_at_usec);
	CHECK(strstr(d->last_error, "is of another server"));
	answer(d, 0);			/* the one on file will do */
	CHECK_INT(n_jobs, 1);
	end_job(0, 0);
	CHECK_INT(d->state, STATE_CONNECTED);
}

/* ---- … that moves to a third --------------------------------------------------------- */

static struct device *moving(void)
{
	struct device *d = make();

	(void)make_link(d, &d->links[0], LINK_ALIVE, d->size);
	d->dead_links = d->kernel_dead = 0;
	d->state = STATE_CONNECTED;
	CHECK_INT(move_new(d, &d->keys, true, NULL, NULL), 0);
	d->move->flushed = true;
	add_server(&d->move->target, "10.0.0.3");
	d->move->target.export_name = strdup("f");
	(void)make_link(d, &d->move->links[0], LINK_READY, d->size);
	return d;
}

TEST(a_move_is_not_begun_when_nothing_can_be_written)
{
	struct device *d = moving();

	d->outages.count++;		/* anything that is to be written */
	file.full = true;
	device_event(d, EV_MOVE_SWITCH, NULL);
	CHECK(!d->move);
	CHECK_INT(d->state, STATE_CONNECTED);
}

TEST(a_move_that_cannot_be_written_goes_back_although_writes_are_not_counted)
{
	struct device *d = moving();

	device_event(d, EV_MOVE_SWITCH, NULL);
	CHECK_INT(d->state, STATE_MOVING);
	file.full = true;
	device_event(d, EV_LINK_DEAD, NULL);
	CHECK(!d->move);
	CHECK_INT(d->state, STATE_RECONNECTING);
	CHECK_STR(d->target.servers[0].host, "10.0.0.1");
	CHECK(strstr(file.text, "\"export\":\"e\""));
	end_job(0, 0);			/* CONFIGURE: how long I/O waits */
	answer(d, 0);
	end_job(1, 0);
	CHECK_INT(d->state, STATE_CONNECTED);
}

TEST(a_move_is_on_file_before_the_kernel_is_asked_and_is_taken_from_it_on_the_way_back)
{
	struct device *d = moving();

	device_event(d, EV_MOVE_SWITCH, NULL);
	device_event(d, EV_LINK_DEAD, NULL);
	CHECK_INT(n_jobs, 1);
	CHECK(strstr(file.text, "\"export\":\"f\""));
	CHECK(d->move->asked);
	file.full = file.stuck = true;
	d->move->asked = false;		/* as if writes were counted, and there was none */
	end_job(0, -EIO);
	device_event(d, EV_LINK_DEAD, NULL);
	CHECK_INT(d->state, STATE_RECONNECTING);
	end_job(1, 0);			/* CONFIGURE */
	answer(d, 0);
	CHECK_INT(n_jobs, 2);		/* the file names the other one */
	file.full = false;
	answer(d, 0);
	CHECK_INT(n_jobs, 3);
	CHECK(strstr(file.text, "\"export\":\"e\""));
}
