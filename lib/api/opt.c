#include "lib/api/call.h"

int call_wait_option(struct nbd_handle *h)
{
	if (session_wait_connected(h) < 0)
		return -1;
	if (!h->option.error)
		return 0;
	if (!h->option.message[0])
		return session_error(h, h->option.error, "connection lost");
	return session_error(h, h->option.error, "%s", h->option.message);
}

int call_begin_option(struct nbd_handle *h, enum plan plan,
		      nbd_completion_callback *completion)
{
	h->option.completion = CALLBACK_TAKE(completion);
	if (option_begin(h, plan) < 0) {
		/* The call failed: callbacks are not called, but freed. */
		h->option.by_user = false;
		option_clear(&h->option);
		return -1;
	}
	session_update_direction(h);
	return 0;
}

static int run(struct nbd_handle *h, enum plan plan)
{
	nbd_completion_callback none = NBD_NULL_COMPLETION;

	return call_begin_option(h, plan, &none) < 0 ? -1 : call_wait_option(h);
}

int api_opt_go(struct nbd_handle *h)
{
	return run(h, PLAN_GO);
}

int api_opt_info(struct nbd_handle *h)
{
	return run(h, PLAN_INFO);
}

int api_opt_abort(struct nbd_handle *h)
{
	return run(h, PLAN_ABORT);
}

int api_opt_list(struct nbd_handle *h, nbd_list_callback *list)
{
	h->option.list = CALLBACK_TAKE(list);
	return run(h, PLAN_LIST) < 0 ? -1 : (int)h->option.items;
}

/* Options that the server may decline: whether it took it. */
static int run_bool(struct nbd_handle *h, enum plan plan)
{
	nbd_completion_callback none = NBD_NULL_COMPLETION;

	if (call_begin_option(h, plan, &none) < 0 || session_wait_connected(h) < 0)
		return -1;
	return !h->option.error;
}

int api_opt_structured_reply(struct nbd_handle *h)
{
	return run_bool(h, PLAN_STRUCTURED_REPLY);
}

int api_opt_extended_headers(struct nbd_handle *h)
{
	return run_bool(h, PLAN_EXTENDED_HEADERS);
}

static int check_no_tls(struct nbd_handle *h)
{
	return h->export.tls ? session_error(h, EINVAL, "TLS is active already") : 0;
}

int api_opt_starttls(struct nbd_handle *h)
{
	return check_no_tls(h) < 0 ? -1 : run_bool(h, PLAN_STARTTLS);
}

int api_aio_opt_starttls(struct nbd_handle *h, nbd_completion_callback *completion)
{
	return check_no_tls(h) < 0 ? -1 : call_begin_option(h, PLAN_STARTTLS, completion);
}

int api_aio_opt_go(struct nbd_handle *h, nbd_completion_callback *completion)
{
	return call_begin_option(h, PLAN_GO, completion);
}

int api_aio_opt_info(struct nbd_handle *h, nbd_completion_callback *completion)
{
	return call_begin_option(h, PLAN_INFO, completion);
}

int api_aio_opt_abort(struct nbd_handle *h)
{
	nbd_completion_callback none = NBD_NULL_COMPLETION;

	return call_begin_option(h, PLAN_ABORT, &none);
}

int api_aio_opt_list(struct nbd_handle *h, nbd_list_callback *list,
		     nbd_completion_callback *completion)
{
	h->option.list = CALLBACK_TAKE(list);
	return call_begin_option(h, PLAN_LIST, completion);
}

int api_aio_opt_structured_reply(struct nbd_handle *h, nbd_completion_callback *completion)
{
	return call_begin_option(h, PLAN_STRUCTURED_REPLY, completion);
}

int api_aio_opt_extended_headers(struct nbd_handle *h, nbd_completion_callback *completion)
{
	return call_begin_option(h, PLAN_EXTENDED_HEADERS, completion);
}

int64_t api_get_option_reply(struct nbd_handle *h)
{
	return h->option.last_reply;
}
