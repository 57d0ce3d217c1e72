/* The calls of opt mode, of progress and of the end, a row each. */
#include <errno.h>
#include <string.h>

#include "lib/util/macro.h"
#include "tests/fuzz/lib_client.h"
#include "tests/fuzz/promise.h"

static int on_context(void *data, const char *name)
{
	struct watch *w = client_called(data);

	client_touch(name, strlen(name));
	return MIN(w->ret, 0);
}

static int on_list(void *data, const char *name, const char *description)
{
	struct watch *w = client_called(data);

	client_touch(name, strlen(name));
	client_touch(description, strlen(description));
	return MIN(w->ret, 0);
}

static struct watch *list_watch(struct client *c, uint8_t a)
{
	return client_watch(c, client_ret(a));
}

static char **queries(uint8_t a)
{
	static char *none[] = { NULL };
	static char *two[] = { (char *)"base:", (char *)"x:y", NULL };

	return a & 16 ? two : none;
}

static void o_go(struct client *c, uint8_t a)
{
	client_check(c, nbd_opt_go(c->h));
}

static void o_info(struct client *c, uint8_t a)
{
	client_check(c, nbd_opt_info(c->h));
}

static void o_abort(struct client *c, uint8_t a)
{
	client_check(c, nbd_opt_abort(c->h));
}

static void o_list(struct client *c, uint8_t a)
{
	struct watch *w = list_watch(c, a);

	client_check(c, nbd_opt_list(c->h, CLIENT_CALLBACK(list, on_list, w)));
	PROMISE(w->freed == 1);
}

static void o_list_meta(struct client *c, uint8_t a)
{
	struct watch *w = list_watch(c, a);

	client_check(c, a & 1 ? nbd_opt_list_meta_context_queries(
					c->h, queries(a), CLIENT_CALLBACK(context, on_context, w))
			      : nbd_opt_list_meta_context(
					c->h, CLIENT_CALLBACK(context, on_context, w)));
	PROMISE(w->freed == 1);
}

static void o_set_meta(struct client *c, uint8_t a)
{
	struct watch *w = list_watch(c, a);

	client_check(c, a & 1 ? nbd_opt_set_meta_context_queries(
					c->h, queries(a), CLIENT_CALLBACK(context, on_context, w))
			      : nbd_opt_set_meta_context(
					c->h, CLIENT_CALLBACK(context, on_context, w)));
	PROMISE(w->freed == 1);
}

static void o_structured(struct client *c, uint8_t a)
{
	client_check(c, nbd_opt_structured_reply(c->h));
}

static void o_extended(struct client *c, uint8_t a)
{
	client_check(c, nbd_opt_extended_headers(c->h));
}

/* No TLS: its random numbers would make every session another. */
static void o_starttls(struct client *c, uint8_t a)
{
	client_check(c, nbd_get_tls_negotiated(c->h));
}

static void ao_go(struct client *c, uint8_t a)
{
	CLIENT_ISSUE(nbd_aio_opt_go(c->h, client_completion(c, a, &w)));
}

static void ao_info(struct client *c, uint8_t a)
{
	CLIENT_ISSUE(nbd_aio_opt_info(c->h, client_completion(c, a, &w)));
}

static void ao_abort(struct client *c, uint8_t a)
{
	client_check(c, nbd_aio_opt_abort(c->h));
}

static void ao_list(struct client *c, uint8_t a)
{
	struct watch *list = list_watch(c, a);

	CLIENT_ISSUE(nbd_aio_opt_list(c->h, CLIENT_CALLBACK(list, on_list, list),
				      client_completion(c, a, &w)));
}

static void ao_list_meta(struct client *c, uint8_t a)
{
	struct watch *list = list_watch(c, a);

	CLIENT_ISSUE(nbd_aio_opt_list_meta_context_queries(
			c->h, queries(a), CLIENT_CALLBACK(context, on_context, list),
			client_completion(c, a, &w)));
}

static void ao_set_meta(struct client *c, uint8_t a)
{
	struct watch *list = list_watch(c, a);

	CLIENT_ISSUE(nbd_aio_opt_set_meta_context(
			c->h, CLIENT_CALLBACK(context, on_context, list),
			client_completion(c, a, &w)));
}

static void ao_structured(struct client *c, uint8_t a)
{
	CLIENT_ISSUE(nbd_aio_opt_structured_reply(c->h, client_completion(c, a, &w)));
}

static void ao_extended(struct client *c, uint8_t a)
{
	CLIENT_ISSUE(nbd_aio_opt_extended_headers(c->h, client_completion(c, a, &w)));
}

static void set_name(struct client *c, uint8_t a)
{
	client_check(c, nbd_set_export_name(c->h, a & 1 ? "a" : ""));
	client_check(c, nbd_add_meta_context(c->h, a & 2 ? "x:z" : "base:allocation"));
}

/* Is something to come?  Only then for ever, for the sake of record.py. */
static int busy(struct client *c)
{
	return nbd_aio_is_connecting(c->h) || nbd_aio_in_flight(c->h) > 0;
}

static void poll_some(struct client *c, uint8_t a)
{
	if (!(a & 3))
		client_check(c, nbd_poll(c->h, 0));
	for (unsigned i = a & 3; i && busy(c); i--)
		client_check(c, nbd_poll(c->h, -1));
}

static void poll_all(struct client *c, uint8_t a)
{
	while (busy(c))
		client_check(c, nbd_poll(c->h, -1));
}

static void notify_read(struct client *c, uint8_t a)
{
	client_check(c, nbd_aio_notify_read(c->h));
}

static void notify_write(struct client *c, uint8_t a)
{
	client_check(c, nbd_aio_notify_write(c->h));
}

static void completed(struct client *c, uint8_t a)
{
	int64_t first = nbd_aio_peek_command_completed(c->h);

	client_check(c, first);
	if (first > 0) {
		int r = nbd_aio_command_completed(c->h, (uint64_t)first);

		PROMISE(r == 1 || (r == -1 && nbd_get_errno() > 0));
	}
}

static void disconnect(struct client *c, uint8_t a)
{
	client_check(c, nbd_aio_disconnect(c->h, 0));
}

static void shut_down(struct client *c, uint8_t a)
{
	client_check(c, nbd_shutdown(c->h, a & 1 ? LIBNBD_SHUTDOWN_ABANDON_PENDING : 0));
}

static void (*const calls[])(struct client *c, uint8_t a) = {
	o_go, o_info, o_abort, o_list, o_list_meta, o_set_meta, o_structured, o_extended,
	o_starttls, ao_go, ao_info, ao_abort, ao_list, ao_list_meta, ao_set_meta, ao_structured,
	ao_extended, set_name, poll_some, notify_read, notify_write, completed, disconnect,
	shut_down, poll_all,
};

void client_option_call(struct client *c, uint8_t number, uint8_t argument)
{
	calls[number % ARRAY_SIZE(calls)](c, argument);
}
