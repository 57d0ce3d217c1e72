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

void __wrap_conf_fetch(struct manager *m, conf_fetched_fn done, void *userdata)
{
	called.fetched = done;
	called.fetch_userdata = userdata;
}

static struct varlink_call *const call = (struct varlink_call *)&called;

static void ask(void (*method)(struct varlink_call *, struct json_object *, void *),
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

	ask(control_method_attach, m, "{\"name\":\"y\"}");
	CHECK(called.fetched && !called.error);
	called.fetched(m, -ETIMEDOUT, NULL, called.fetch_userdata);
	CHECK_STR(called.error, CONTROL_ERROR_CONNECT_FAILED);
}
