#include <errno.h>

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
