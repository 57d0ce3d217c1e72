#include "tests/fuzz/lib_client.h"

#include <stdbool.h>
#include <string.h>

#include "lib/util/escape.h"
#include "tests/fuzz/promise.h"

#define ROUNDS_MAX 100000		/* of poll: input is far shorter */

void *client_alloc(struct client *c, size_t size)
{
	struct block *b = malloc(sizeof(*b) + size);

	PROMISE(b);
	b->next = c->blocks;
	c->blocks = b;
	return b->data;
}

struct watch *client_watch(struct client *c, int ret)
{
	struct watch *w = calloc(1, sizeof(*w));

	PROMISE(w);
	*w = (struct watch) { .next = c->watches, .ret = ret };
	c->watches = w;
	return w;
}

int client_ret(uint8_t a)
{
	static const int values[] = { -1, 0, 1, -2 };

	return values[a >> 6];
}

void client_on_free(void *data)
{
	struct watch *w = data;

	w->freed++;
	PROMISE(w->freed == 1);
}

struct watch *client_called(void *data)
{
	struct watch *w = data;

	PROMISE(!w->freed);
	w->calls++;
	return w;
}

static int on_completion(void *data, int *error)
{
	struct watch *w = client_called(data);

	PROMISE(*error >= 0 && w->calls == 1);
	return w->ret;
}

nbd_completion_callback client_completion(struct client *c, uint8_t a, struct watch **ret)
{
	if (a & 32) {
		*ret = NULL;
		return NBD_NULL_COMPLETION;
	}
	*ret = client_watch(c, client_ret(a));
	(*ret)->is_completion = 1;
	return CLIENT_CALLBACK(completion, on_completion, *ret);
}

void client_issued(struct client *c, struct watch *w, int64_t result)
{
	client_check(c, result);
	PROMISE(result >= -1);
	if (result == -1) {
		PROMISE(!w || (w->freed == 1 && w->calls == 0));
		return;
	}
	if (w)
		w->issued = 1;
	if (result > 0)
		c->cookies[c->n_cookies++] = result;
}

static volatile int odd;

void client_touch(const void *data, size_t len)
{
	const uint8_t *p = data;
	unsigned sum = 0;

	for (size_t i = 0; i < len; i++)
		sum += p[i];
	/* A decision that hangs on all of it. */
	if (sum % 2)
		odd = 1;
}

void client_check(struct client *c, int64_t result)
{
	const char *error = nbd_get_error();

	if (result != -1)
		return;
	PROMISE(error && strncmp(error, "nbd", 3) == 0 && nbd_get_errno() >= 0);
	PROMISE(text_is_printable(error, strlen(error)));
}

static int on_debug(void *data, const char *context, const char *message)
{
	PROMISE(text_is_printable(message, strlen(message)));
	client_touch(context, strlen(context));
	return 0;
}

/* What the first bytes of the plan say. */
static void configure(struct nbd_handle *h, uint8_t a, uint8_t b)
{
	static const char *const contexts[] = {
		LIBNBD_CONTEXT_BASE_ALLOCATION, LIBNBD_CONTEXT_QEMU_ALLOCATION_DEPTH, "x:",
	};

	PROMISE(nbd_set_opt_mode(h, a & 1) == 0);
	PROMISE(nbd_set_request_structured_replies(h, !(a & 2)) == 0);
	PROMISE(nbd_set_request_extended_headers(h, !(a & 4)) == 0);
	PROMISE(nbd_set_full_info(h, !!(a & 8)) == 0);
	PROMISE(nbd_set_request_block_size(h, !(a & 16)) == 0);
	PROMISE(nbd_set_pread_initialize(h, !(a & 32)) == 0);
	PROMISE(nbd_set_handshake_flags(h, a >> 6 ^ 3) == 0);
	for (unsigned i = 0; i < (b & 3); i++)
		PROMISE(nbd_add_meta_context(h, contexts[i]) == 0);
	PROMISE(nbd_set_request_meta_context(h, !(b & 4)) == 0);
	/* No TLS: its random numbers would make every session another. */
	PROMISE(nbd_get_tls(h) == LIBNBD_TLS_DISABLE);
	if (b & 16)
		PROMISE(nbd_set_strict_mode(h, LIBNBD_STRICT_AUTO_FLAG) == 0);
	PROMISE(nbd_set_debug(h, !!(b & 32)) == 0);
}

/* Whatever the server said, these give sound values or a told error. */
static void look(struct client *c)
{
	int (*const flags[])(struct nbd_handle *) = {
		nbd_is_read_only, nbd_can_flush, nbd_can_fua, nbd_is_rotational, nbd_can_trim,
		nbd_can_zero, nbd_can_fast_zero, nbd_can_df, nbd_can_multi_conn, nbd_can_cache,
		nbd_get_structured_replies_negotiated, nbd_get_extended_headers_negotiated,
		nbd_can_block_status_payload, nbd_get_tls_negotiated,
	};
	char *(*const strings[])(struct nbd_handle *) = {
		nbd_get_export_name, nbd_get_canonical_export_name, nbd_get_export_description,
		nbd_get_uri,
	};
	struct nbd_handle *h = c->h;

	for (size_t i = 0; i < sizeof(flags) / sizeof(flags[0]); i++) {
		int r = flags[i](h);

		PROMISE(r >= -1 && r <= 1);
		client_check(c, r);
	}
	for (size_t i = 0; i < sizeof(strings) / sizeof(strings[0]); i++) {
		char *text = strings[i](h);

		client_check(c, text ? 0 : -1);
		if (text)
			client_touch(text, strlen(text));
		free(text);
	}
	for (int i = LIBNBD_SIZE_MINIMUM; i <= LIBNBD_SIZE_PAYLOAD; i++) {
		int64_t size = nbd_get_block_size(h, i);

		PROMISE(size >= -1 && size <= UINT32_MAX);
		client_check(c, size);
	}
	PROMISE(nbd_get_size(h) >= -1);
	client_check(c, nbd_can_meta_context(h, LIBNBD_CONTEXT_BASE_ALLOCATION));
	PROMISE(nbd_connection_state(h));
}

static bool over(struct nbd_handle *h)
{
	return nbd_aio_is_dead(h) || nbd_aio_is_closed(h);
}

/* The server says its last words, and the session must come to its end. */
static void see_to_the_end(struct client *c)
{
	for (unsigned rounds = 0; !over(c->h); rounds++) {
		PROMISE(rounds < ROUNDS_MAX);
		if (nbd_aio_is_negotiating(c->h))
			client_check(c, nbd_opt_abort(c->h));
		else
			client_check(c, nbd_poll(c->h, -1));
	}
	PROMISE(!getenv("FUZZ_SERVERS_ARE_GOOD") || nbd_aio_is_closed(c->h));
	PROMISE(nbd_aio_in_flight(c->h) == 0);
	for (struct watch *w = c->watches; w; w = w->next)
		if (w->is_completion && w->issued)
			PROMISE(w->calls == 1 && (w->freed || w->ret != 1));
	for (size_t i = 0; i < c->n_cookies; i++) {
		int r = nbd_aio_command_completed(c->h, (uint64_t)c->cookies[i]);

		PROMISE(r >= -1 && r <= 1);
		client_check(c, r);
	}
	for (int64_t cookie; (cookie = nbd_aio_peek_command_completed(c->h)) != -1;)
		PROMISE(cookie > 0 && nbd_aio_command_completed(c->h, (uint64_t)cookie) != 0);
	for (struct watch *w = c->watches; w; w = w->next)
		PROMISE(w->freed == 1);
}

static void clean_up(struct client *c)
{
	while (c->watches) {
		struct watch *w = c->watches;

		PROMISE(w->freed == 1);
		c->watches = w->next;
		free(w);
	}
	while (c->blocks) {
		struct block *b = c->blocks;

		c->blocks = b->next;
		free(b);
	}
}

void client_run(const uint8_t *plan, size_t size, int fd)
{
	nbd_debug_callback debug = { .callback = on_debug };
	struct client c = { .h = nbd_create() };

	PROMISE(c.h);
	PROMISE(nbd_set_debug_callback(c.h, debug) == 0);
	configure(c.h, size > 0 ? plan[0] : 0, size > 1 ? plan[1] : 0);
	client_check(&c, nbd_connect_socket(c.h, fd));
	look(&c);
	for (size_t i = PLAN_SETTINGS, n = 0; i + 1 < size && n < PLAN_CALLS_MAX; i += 2, n++)
		client_call(&c, plan[i], plan[i + 1]);
	look(&c);
	/* Or close it as it stands, with whatever is under way. */
	if (size < 2 || !(plan[1] & 128))
		see_to_the_end(&c);
	nbd_close(c.h);
	clean_up(&c);
}
