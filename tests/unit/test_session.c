#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "lib/session/session.h"
#include "tests/unit/unit.h"

#define MANY 1000

static struct nbd_handle *handle(void)
{
	struct nbd_handle *h = session_new("unit");

	CHECK(h);
	return h;
}

static void retire(struct nbd_handle *h, struct command *c)
{
	in_flight_add(h, 1);
	command_complete(h, c);
	command_retire(h, c);
}

/* Cookies ------------------------------------------------------------------------- */

TEST(cookies_are_positive_and_each_finds_its_command)
{
	struct nbd_handle *h = handle();
	struct command *c[MANY];

	for (size_t i = 0; i < MANY; i++) {
		c[i] = command_new(h);
		CHECK((int64_t)c[i]->cookie >= 1);
		for (size_t j = 0; j < i; j++)
			CHECK(c[j]->cookie != c[i]->cookie);
	}
	for (size_t i = 0; i < MANY; i++)
		CHECK(command_find(h, c[i]->cookie) == c[i]);
	session_free(h);
}

TEST(stale_and_unknown_cookies_find_nothing)
{
	struct nbd_handle *h = handle();
	struct command *c;
	uint64_t old;

	CHECK(!command_find(h, 0) && !command_find(h, 1) && !command_find(h, UINT64_MAX));
	c = command_new(h);
	old = c->cookie;
	retire(h, c);
	CHECK(!command_find(h, old));
	c = command_new(h);
	CHECK(c->cookie != old && !command_find(h, old));
	CHECK(!command_find(h, c->cookie + 1));
	session_free(h);
}

TEST(cookies_are_unique_over_many_uses)
{
	struct nbd_handle *h = handle();
	uint64_t before = 0;

	for (size_t i = 0; i < MANY; i++) {
		struct command *c = command_new(h);

		CHECK(c->cookie > before);	/* one slot is used again and again */
		before = c->cookie;
		retire(h, c);
	}
	session_free(h);
}

TEST(cookie_stays_positive_when_the_uses_of_a_slot_wrap)
{
	struct nbd_handle *h = handle();
	struct command *c = command_new(h);

	c->cookie = COOKIE_USES_MAX << COOKIE_SLOT_BITS | c->slot;
	CHECK((int64_t)c->cookie > 0);
	retire(h, c);
	c = command_new(h);
	CHECK_INT(c->cookie >> COOKIE_SLOT_BITS, 1);
	session_free(h);
}

TEST(completed_commands_stand_in_order_and_any_may_be_retired)
{
	struct nbd_handle *h = handle();
	struct command *c[4];

	for (size_t i = 0; i < 4; i++) {
		c[i] = command_new(h);
		in_flight_add(h, 1);
	}
	for (size_t i = 0; i < 4; i++)
		command_complete(h, c[3 - i]);
	CHECK_INT(atomic_load(&h->in_flight), 0);
	command_retire(h, c[2]);
	CHECK(h->commands.done_first == c[3] && c[3]->next == c[1] && c[1]->prev == c[3]);
	command_retire(h, c[3]);
	command_retire(h, c[0]);
	CHECK(h->commands.done_first == c[1] && h->commands.done_last == c[1]);
	command_retire(h, c[1]);
	CHECK(!h->commands.done_first && !h->commands.done_last);
	session_free(h);
}

TEST(first_error_of_a_command_stays)
{
	struct command c = {};

	command_fail(&c, 0);
	command_fail(&c, EIO);
	command_fail(&c, EPERM);
	CHECK_INT(c.error, EIO);
}

/* The queue ----------------------------------------------------------------------- */

static uint8_t queued_byte(const struct tx *tx, size_t at)
{
	for (size_t i = tx->iov_first; i < tx->iov_len; i++) {
		if (at < tx->iov[i].iov_len)
			return ((uint8_t *)tx->iov[i].iov_base)[at];
		at -= tx->iov[i].iov_len;
	}
	FAIL("there is no byte %zu", at);
}

TEST(headers_gather_in_one_piece)
{
	struct tx tx = {};

	for (unsigned i = 0; i < MANY; i++)
		memset(tx_reserve(&tx, REQUEST_SIZE), (int)i, REQUEST_SIZE);
	CHECK_INT(tx.iov_len, 1);
	CHECK_INT(tx.queued, MANY * REQUEST_SIZE);
	for (unsigned i = 0; i < MANY; i++)
		CHECK_INT(queued_byte(&tx, i * REQUEST_SIZE + 5), (uint8_t)i);
	tx_free(&tx);
}

TEST(payloads_stay_where_they_are_and_in_order)
{
	static const uint8_t data[100] = { 1, 2, 3 };
	struct tx tx = {};

	for (unsigned i = 0; i < MANY; i++) {
		memset(tx_reserve(&tx, REQUEST_SIZE), 0x40, REQUEST_SIZE);
		CHECK_INT(tx_append_payload(&tx, data, sizeof(data)), 0);
	}
	CHECK_INT(tx.iov_len, 2 * MANY);
	for (unsigned i = 0; i < MANY; i++) {
		CHECK(tx.iov[2 * i + 1].iov_base == data);
		CHECK_INT(queued_byte(&tx, i * (REQUEST_SIZE + 100)), 0x40);
	}
	tx_free(&tx);
}

TEST(empty_payload_takes_no_place)
{
	struct tx tx = {};

	CHECK_INT(tx_append_payload(&tx, "x", 0), 0);
	CHECK(!tx_pending(&tx));
	tx_free(&tx);
}

TEST(queue_can_be_taken_back)
{
	static const uint8_t data[100];
	struct tx tx = {};
	uint64_t mark;

	CHECK_INT(tx_append(&tx, "0123456789", 10), 0);
	mark = tx.queued;
	CHECK_INT(tx_append(&tx, "abc", 3), 0);
	CHECK_INT(tx_append_payload(&tx, data, sizeof(data)), 0);
	CHECK_INT(tx_append(&tx, "def", 3), 0);
	tx_rewind(&tx, mark);
	CHECK_INT(tx.queued, mark);
	CHECK_INT(tx.iov_len, 1);
	CHECK_INT(tx_append(&tx, "xyz", 3), 0);
	CHECK_INT(tx.iov_len, 1);
	CHECK_INT(queued_byte(&tx, 9), '9');
	CHECK_INT(queued_byte(&tx, 10), 'x');
	tx_free(&tx);
}

/* Takes all but what is at least LEFT_UNSENT of the end. */
#define LEFT_UNSENT 2000

static size_t fake_seen;

static ssize_t fake_send(struct transport *t, const struct iovec *iov, size_t n)
{
	size_t all = 0, len;

	for (size_t i = 0; i < n; i++)
		all += iov[i].iov_len;
	len = all > LEFT_UNSENT ? all - LEFT_UNSENT : 0;
	/* The queue is of bytes that count up. */
	for (size_t i = 0, left = len; left; i++)
		for (size_t j = 0; j < iov[i].iov_len && left; j++, left--)
			CHECK_INT(((uint8_t *)iov[i].iov_base)[j], fake_seen++ % 256);
	return len ? (ssize_t)len : -EAGAIN;
}

static const struct transport_ops fake_ops = { .send = fake_send };

static void put(struct tx *tx, size_t *at, size_t len)
{
	uint8_t *p = tx_reserve(tx, len);

	for (size_t i = 0; i < len; i++)
		p[i] = (uint8_t)(*at)++;
}

static void check_busy_queue(size_t payload_len)
{
	struct nbd_handle *h = handle();
	static uint8_t data[512];
	size_t at = 0;

	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (uint8_t)i;
	fake_seen = 0;
	h->transport.ops = &fake_ops;
	for (unsigned i = 0; i < 20 * MANY; i++) {
		put(&h->tx, &at, REQUEST_SIZE);
		if (i % 3) {
			CHECK_INT(tx_append_payload(&h->tx, data + at % 256, payload_len), 0);
			at += payload_len;
		}
		CHECK_INT(tx_flush(h), h->tx.queued == 0 ? 0 : -EAGAIN);
	}
	CHECK_INT(h->tx.sent, h->tx.queued - LEFT_UNSENT);
	CHECK_INT(h->tx.sent, fake_seen);
	CHECK(h->tx.headers_size <= 8192 && h->tx.iov_size <= 512);
	h->transport = TRANSPORT_NULL;
	session_free(h);
}

TEST(queue_that_never_runs_empty_keeps_its_size)
{
	check_busy_queue(0);
	check_busy_queue(1);
	check_busy_queue(200);
}

/* Sending and waiting ------------------------------------------------------------- */

/* What the thread of the user's loop, which takes no lock for it, does meanwhile. */
static struct nbd_handle *asking;
static unsigned asked;

bool __real_session_in_loop(struct nbd_handle *h);
bool __wrap_session_in_loop(struct nbd_handle *h);

bool __wrap_session_in_loop(struct nbd_handle *h)
{
	bool r = __real_session_in_loop(h);

	if (asking == h)
		asked = nbd_aio_get_direction(h);
	return r;
}

static const struct call a_call = { "unit", STATES_ANY };

/* A handle in the transmission phase, with a loop of the user's own, after a notification. */
static struct nbd_handle *handle_in_loop(int *ret_peer)
{
	struct nbd_handle *h = handle();
	int fds[2];

	CHECK_INT(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
	h->call = &a_call;
	CHECK_INT(session_attach(h, fds[0]), 0);
	atomic_store(&h->phase, PHASE_TRANSMISSION);
	h->export.known = true;
	h->export.size = 1 << 20;
	session_update_direction(h);
	h->last_burst = 2;
	for (unsigned i = 0; i < 8; i++) {
		CHECK_INT(nbd_aio_get_direction(h), LIBNBD_AIO_DIRECTION_READ);
		CHECK_INT(session_notify_read(h), 0);
	}
	*ret_peer = fds[1];
	return h;
}

TEST(a_loop_that_comes_back_sends_what_was_queued_meanwhile)
{
	struct command_spec s = { .type = NBD_CMD_READ, .count = 512, .buf = (char[512]) {} };
	int peer;
	struct nbd_handle *h = handle_in_loop(&peer);

	CHECK(command_issue(h, &s) > 0);
	CHECK_INT(h->tx.sent, 0);
	CHECK_INT(nbd_aio_get_direction(h), LIBNBD_AIO_DIRECTION_BOTH);
	close(peer);
	session_free(h);
}

TEST(a_loop_that_asked_too_early_leaves_no_request_behind)
{
	struct command_spec s = { .type = NBD_CMD_READ, .count = 512, .buf = (char[512]) {} };
	int peer;
	struct nbd_handle *h = handle_in_loop(&peer);

	asking = h;
	CHECK(command_issue(h, &s) > 0);
	CHECK_INT(asked, LIBNBD_AIO_DIRECTION_READ);
	CHECK_INT(h->tx.sent, REQUEST_SIZE);
	close(peer);
	session_free(h);
}

TEST(notifications_leave_connecting_to_the_thread_that_waits_for_it)
{
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_addr = { htonl(INADDR_LOOPBACK) } };
	struct nbdd_address a = { .len = sizeof(in) };
	int listener = socket(AF_INET, SOCK_STREAM, 0);
	struct nbd_handle *h = handle();

	CHECK(bind(listener, (struct sockaddr *)&in, sizeof(in)) == 0 && listen(listener, 1) == 0);
	CHECK(getsockname(listener, (struct sockaddr *)&in, &a.len) == 0);
	memcpy(&a.addr, &in, sizeof(in));
	h->call = &a_call;
	CHECK_INT(session_dial(h, &a, 1), 0);
	h->polling = true;
	CHECK_INT(session_notify_write(h), 0);
	CHECK(h->dial && atomic_load(&h->phase) == PHASE_CONNECTING);
	h->polling = false;
	while (h->dial)
		CHECK(session_notify_write(h) == 0);
	CHECK_INT(atomic_load(&h->phase), PHASE_HELLO);
	close(listener);
	session_free(h);
}

TEST(closing_writes_to_no_buffer_of_the_user)
{
	struct nbd_handle *h = handle();
	uint8_t buf[16] = { 1, 2, 3 };

	h->rx.command = command_new(h);
	h->rx.dst = buf;
	h->rx.left = sizeof(buf);
	session_free(h);
	CHECK_INT(buf[0], 1);
}

/* States -------------------------------------------------------------------------- */

TEST(each_phase_belongs_to_one_group_of_states)
{
	for (unsigned p = 0; p < PHASES; p++) {
		unsigned s = phase_states(p);

		CHECK(s && !(s & (s - 1)) && !(s & ~STATES_ANY));
		CHECK_INT(phase_is_connecting(p), s == STATES_CONNECTING);
	}
}

TEST(states_are_put_in_words)
{
	char text[200];

	CHECK_STR(states_phrase(text, sizeof(text), STATES_CREATED), "newly created");
	CHECK_STR(states_phrase(text, sizeof(text), STATES_NEGOTIATING | STATES_CLOSED),
		  "negotiating, or shut down");
	CHECK_INT(strlen(states_phrase(text, 20, STATES_ANY)), 19);
}

/* Metadata contexts --------------------------------------------------------------- */

TEST(contexts_are_found_by_id_and_by_name)
{
	struct meta m = {};

	CHECK_INT(meta_select(&m, 7, "a:bX", 3), 0);
	CHECK_INT(meta_select(&m, 0, "c:d", 3), 0);
	CHECK_INT(meta_select(&m, 7, "e:f", 3), -EEXIST);
	CHECK_STR(meta_by_id(&m, 7)->name, "a:b");
	CHECK_INT(meta_by_name(&m, "c:d")->id, 0);
	CHECK(!meta_by_id(&m, 8) && !meta_by_name(&m, "a:"));
	meta_clear(&m);
	CHECK(!meta_by_id(&m, 7));
}

TEST(contexts_have_a_limit)
{
	struct meta m = {};

	for (uint32_t i = 0; i < CONTEXTS_MAX; i++)
		CHECK_INT(meta_select(&m, i, "x", 1), 0);
	CHECK_INT(meta_select(&m, CONTEXTS_MAX, "x", 1), -E2BIG);
	meta_clear(&m);
}

/* Errors -------------------------------------------------------------------------- */

TEST(error_text_names_call_and_errno)
{
	CHECK(!error_text());
	CHECK_INT(error_set("nbd_x", EINVAL, "bad %s", "thing"), -1);
	CHECK_STR(error_text(), "nbd_x: bad thing: Invalid argument");
	CHECK_INT(error_errno(), EINVAL);
	error_set("nbd_y", 0, "odd");
	CHECK_STR(error_text(), "nbd_y: odd");
	CHECK_INT(error_errno(), 0);
}

TEST(error_text_has_an_end)
{
	static char longest[10000];

	memset(longest, 'x', sizeof(longest) - 1);
	error_set("nbd_x", EIO, "%s", longest);
	CHECK(strlen(error_text()) < ERROR_TEXT_MAX);
	CHECK(strstr(error_text(), ": Input/output error"));
}
