/* Who calls nbdd about a device, and does not get to the end of it. */
#include <errno.h>
#include <string.h>

#include "daemon/control.h"
#include "daemon/fetch.h"
#include "daemon/manager.h"
#include "daemon/proto/varlink.h"
#include "tests/unit/fake_device.h"
#include "tests/unit/unit.h"

/* ---- a call without a client --------------------------------------------------------- */

static struct {
	void (*gone)(struct varlink_call *call, void *userdata);
	void *userdata;
	const char *error;		/* that it was answered with */
	unsigned dropped;
	conf_fetched_fn fetched;
	void *fetch_userdata;
} called;

__typeof__(varlink_call_set_gone) __wrap_varlink_call_set_gone;
__typeof__(varlink_call_drop) __wrap_varlink_call_drop;
__typeof__(varlink_call_error) __wrap_varlink_call_error;
__typeof__(resolver_start) __wrap_resolver_start;
__typeof__(conf_fetch) __wrap_conf_fetch;

void __wrap_varlink_call_set_gone(struct varlink_call *call,
				  void (*fn)(struct varlink_call *call, void *userdata),
				  void *userdata)
{
	called.gone = fn;
	called.userdata = userdata;
}

void __wrap_varlink_call_drop(struct varlink_call *call)
{
	called.dropped++;
}

int __wrap_varlink_call_error(struct varlink_call *call, const char *error,
			      struct json_object *params)
{
	called.error = error;
	json_object_put(params);
	return 0;
}

int __wrap_resolver_start(sd_event *event, const char *name, const struct device_keys *keys,
			  struct spawner *spawner, unsigned *n, resolver_done_fn done,
			  void *userdata, struct resolver **ret)
{
	*ret = NULL;
	return 0;
}

void __wrap_conf_fetch(struct manager *m, conf_fetched_fn done, void *userdata)
{
	called.fetched = done;
	called.fetch_userdata = userdata;
}

static struct varlink_call *const call = (struct varlink_call *)&called;

static void request(void (*method)(struct varlink_call *, struct json_object *, void *),
		struct manager *m, const char *params)
{
	struct json_object *o = json_tokener_parse(params);

	CHECK(o);
	method(call, o, m);
	json_object_put(o);
}

/* ---- Attach --------------------------------------------------------------------------- */

TEST(files_that_were_never_read_do_not_say_that_there_is_no_such_device)
{
	struct manager *m = manager();

	request(control_method_attach, m, "{\"name\":\"y\"}");
	CHECK(called.fetched && !called.error);
	called.fetched(m, -ETIMEDOUT, NULL, called.fetch_userdata);
	CHECK_STR(called.error, CONTROL_ERROR_CONNECT_FAILED);
}

/* One that is being attached, and is asked for by its keys. */
static struct device *asked_for(struct manager *m)
{
	struct device *d = connected(m, 1);
	char error[CONF_ERROR_MAX];

	CHECK_INT(device_keys_set(&d->keys, "uri", "nbd://10.0.0.1", error), 0);
	d->automatic = false;
	d->state = STATE_ATTACHING;
	request(control_method_attach, m, "{\"name\":\"x\",\"keys\":{\"uri\":\"nbd://10.0.0.1\"}}");
	CHECK(called.gone && !called.error);
	return d;
}

TEST(a_device_that_nobody_waits_for_any_more_is_not_attached)
{
	struct device *d = asked_for(manager());

	called.gone(call, called.userdata);
	CHECK_INT(called.dropped, 1);
	CHECK(d->detach_wanted);
}

TEST(the_end_of_nbdd_is_not_that_of_who_waits_for_a_device)
{
	struct manager *m = manager();
	struct device *d = asked_for(m);

	m->leaving = true;
	called.gone(call, called.userdata);
	CHECK_INT(called.dropped, 1);
	CHECK(!d->detach_wanted && !d->attachers[0]);
}

/* ---- Move ----------------------------------------------------------------------------- */

static struct device *asked_to_move(struct manager *m)
{
	struct device *d = connected(m, 1);

	request(control_method_move, m, "{\"device\":\"x\",\"keys\":{\"uri\":\"nbd://10.0.0.2\"}}");
	CHECK(called.gone && !called.error && d->move);
	return d;
}

TEST(a_move_that_nobody_waits_for_any_more_is_given_up)
{
	struct device *d = asked_to_move(manager());

	called.gone(call, called.userdata);
	CHECK_INT(called.dropped, 1);
	CHECK(!d->move);
}

TEST(the_end_of_nbdd_begins_nothing_for_who_waits_for_a_move)
{
	struct manager *m = manager();
	struct device *d = asked_to_move(m);

	m->leaving = true;
	called.gone(call, called.userdata);
	CHECK_INT(called.dropped, 1);
	CHECK(d->move);			/* its connections and timers are as they were */
	device_free(d);			/* which tells nobody */
	CHECK(!called.error);
}
