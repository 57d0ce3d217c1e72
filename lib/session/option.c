#include "lib/session/option.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/session/option_row.h"
#include "lib/util/escape.h"

#define PLAN_STEPS_MAX 6

/* 0 ends a plan.  Options with wanted() are sent only when it says so. */
static const uint8_t plans[PLANS][PLAN_STEPS_MAX] = {
	[PLAN_CONNECT] = { NBD_OPT_STARTTLS, NBD_OPT_EXTENDED_HEADERS,
			   NBD_OPT_STRUCTURED_REPLY, NBD_OPT_SET_META_CONTEXT, NBD_OPT_GO },
	[PLAN_CONNECT_OPT_MODE] = { NBD_OPT_STARTTLS, NBD_OPT_EXTENDED_HEADERS,
				    NBD_OPT_STRUCTURED_REPLY },
	[PLAN_GO] = { NBD_OPT_SET_META_CONTEXT, NBD_OPT_GO },
	[PLAN_INFO] = { NBD_OPT_SET_META_CONTEXT, NBD_OPT_INFO },
	[PLAN_ABORT] = { NBD_OPT_ABORT },
	[PLAN_LIST] = { NBD_OPT_LIST },
	[PLAN_STARTTLS] = { NBD_OPT_STARTTLS },
	[PLAN_STRUCTURED_REPLY] = { NBD_OPT_STRUCTURED_REPLY },
	[PLAN_EXTENDED_HEADERS] = { NBD_OPT_EXTENDED_HEADERS },
	[PLAN_LIST_META_CONTEXT] = { NBD_OPT_LIST_META_CONTEXT },
	[PLAN_SET_META_CONTEXT] = { NBD_OPT_SET_META_CONTEXT },
};

const struct option_row *option_row(uint32_t option)
{
	const struct option_row *row = option_rows;

	while (row->option != option)
		row++;
	return row;
}

void queries_free(char **queries)
{
	for (size_t i = 0; queries && queries[i]; i++)
		free(queries[i]);
	free(queries);
}

void option_clear(struct option_exchange *o)
{
	CALLBACK_FREE(o->list);
	CALLBACK_FREE(o->context);
	CALLBACK_FREE(o->completion);
	queries_free(o->queries);
	o->queries = NULL;
	buffer_clear(&o->in);
}

static int out_of_memory(struct nbd_handle *h)
{
	return session_error(h, ENOMEM, "no memory for an option");
}

/* Send an option's header and data. */
static int send_option(struct nbd_handle *h, const struct option_row *row)
{
	struct buffer data = BUFFER_NULL(1u << 20), head = BUFFER_NULL(64);
	int r = row->data ? row->data(h, &data) : 0;

	if (r == 0)
		r = option_pack(&head, row->option, (uint32_t)data.len);
	if (r == 0)
		r = tx_append(&h->tx, head.data, head.len);
	if (r == 0 && data.len)
		r = tx_append(&h->tx, data.data, data.len);
	buffer_clear(&data);
	buffer_clear(&head);
	if (r == -ENOBUFS)
		return session_error(h, E2BIG, "request to %s is too long",
				     option_name(row->option));
	if (r < 0)
		return out_of_memory(h);
	h->option.row = row;
	h->option.replies = h->option.items = 0;
	h->stats.chunks_sent++;
	atomic_store(&h->phase, row->option == NBD_OPT_EXPORT_NAME ? PHASE_EXPORT_NAME
								   : PHASE_OPTION);
	r = tx_flush(h);
	if (r < 0 && r != -EAGAIN)
		h->tx.error = -r;
	return 0;
}

/* The plan is at its end without having begun transmission. */
static int end_of_plan(struct nbd_handle *h)
{
	h->option.row = NULL;
	atomic_store(&h->phase, PHASE_NEGOTIATING);
	if (h->option.by_user)
		option_finish(h, 0);
	return 0;
}

static bool step_wanted(struct nbd_handle *h, const struct option_row *row)
{
	/* A step that stands alone was asked for by the user in so many words. */
	return !row->wanted || plans[h->option.plan][1] == 0 || row->wanted(h);
}

int option_continue(struct nbd_handle *h)
{
	struct option_exchange *o = &h->option;

	while (o->step < PLAN_STEPS_MAX && plans[o->plan][o->step]) {
		const struct option_row *row = option_row(plans[o->plan][o->step++]);

		if (step_wanted(h, row))
			return send_option(h, row);
	}
	return end_of_plan(h);
}

int option_next(struct nbd_handle *h, enum plan plan)
{
	h->option.plan = plan;
	h->option.step = 0;
	return option_continue(h);
}

int option_begin(struct nbd_handle *h, enum plan plan)
{
	bool fixed = h->export.handshake_flags & NBD_FLAG_FIXED_NEWSTYLE;

	h->option.by_user = true;
	h->option.error = 0;
	h->option.message[0] = '\0';
	h->option.last_reply = -1;
	/* "NBD_OPT_EXPORT_NAME": the only option of servers without fixed newstyle. */
	if (!fixed && plan == PLAN_GO)
		return send_option(h, option_row(NBD_OPT_EXPORT_NAME));
	if (!fixed && plan == PLAN_ABORT) {
		session_closed(h);
		return 0;
	}
	if (!fixed)
		return session_error(h, ENOTSUP, "server is not using fixed newstyle protocol");
	return option_next(h, plan);
}

void option_finish(struct nbd_handle *h, int error)
{
	struct option_exchange *o = &h->option;

	if (!o->by_user)
		return;
	o->by_user = false;
	o->error = error;
	queries_free(o->queries);
	o->queries = NULL;
	if (o->completion.callback)
		CALLBACK_CALL(o->completion, &error);
	CALLBACK_FREE(o->list);
	CALLBACK_FREE(o->context);
	CALLBACK_FREE(o->completion);
}

/* The errno for an error reply to an option that the user sent. */
static int reply_errno(const struct option_row *row, uint32_t type)
{
	if (row->lenient)
		return ENOTSUP;
	switch (type) {
	case NBD_REP_ERR_INVALID:
	case NBD_REP_ERR_TOO_BIG:
	case NBD_REP_ERR_BLOCK_SIZE_REQD:
		return EINVAL;
	case NBD_REP_ERR_UNKNOWN:
		return ENOENT;
	case NBD_REP_ERR_SHUTDOWN:
		return ESHUTDOWN;
	default:
		return ENOTSUP;
	}
}

/* The server's text in an error reply, or nothing: ` ("...")`, escaped. */
static char *reply_text(char *dst, size_t size, const uint8_t *payload, size_t len)
{
	char text[200];

	dst[0] = '\0';
	if (len)
		snprintf(dst, size, " (\"%s\")", escape_text(text, sizeof(text),
							     (const char *)payload, len));
	return dst;
}

static int error_reply(struct nbd_handle *h, uint32_t type, const uint8_t *payload, size_t len)
{
	struct option_exchange *o = &h->option;
	const struct option_row *row = o->row;
	const char *name = option_reply_name(type);
	char text[256], number[32];

	o->last_reply = type;
	reply_text(text, sizeof(text), payload, len);
	/* Old servers: "NBD_OPT_GO" may not be known, its predecessor is. */
	if (row->option == NBD_OPT_GO && type == NBD_REP_ERR_UNSUP &&
	    !h->export.extended_headers)
		return send_option(h, option_row(NBD_OPT_EXPORT_NAME));
	if (!o->by_user)
		return row->refused(h, type, text) < 0 ? -1 : option_continue(h);
	/* A step on the way to GO or INFO: meta contexts are optional there. */
	if (plans[o->plan][o->step]) {
		if (row->refused(h, type, text) < 0)
			return -1;
		return option_continue(h);
	}
	if (row->option == NBD_OPT_GO || row->option == NBD_OPT_INFO)
		session_reset_export(h);
	snprintf(number, sizeof(number), "0x%" PRIx32, type);
	snprintf(o->message, sizeof(o->message),
		 "server replied with error to %s request: %s%s", row->request_name,
		 name ? name : number, text);
	o->row = NULL;
	atomic_store(&h->phase, PHASE_NEGOTIATING);
	option_finish(h, reply_errno(row, type));
	return 0;
}

/* NBD_REP_ACK. */
static int acknowledged(struct nbd_handle *h, size_t len)
{
	h->option.last_reply = NBD_REP_ACK;
	if (len)
		return session_error(h, EPROTO, "handshake: invalid NBD_REP_ACK option reply "
				     "length: %zu, expected 0", len);
	if (h->option.row->ack && h->option.row->ack(h) < 0)
		return -1;
	if (atomic_load(&h->phase) != PHASE_OPTION)
		return 0;		/* transmission has begun, or the session is over */
	return option_continue(h);
}

int option_reply_take(struct nbd_handle *h, uint32_t option, uint32_t type,
		      const uint8_t *payload, size_t len)
{
	struct option_exchange *o = &h->option;
	const struct option_row *row = o->row;
	struct reader r = { payload, len };

	if (option != row->option)
		return session_error(h, EPROTO, "handshake: invalid option reply magic or option: "
				     "reply to option %" PRIu32 ", expected %s", option,
				     option_name(row->option));
	if (++o->replies > OPTION_REPLIES_MAX)
		return session_error(h, EPROTO, "handshake: server sent more than %u replies to "
				     "%s", OPTION_REPLIES_MAX, option_name(row->option));
	if (type == NBD_REP_ACK)
		return acknowledged(h, len);
	if (type & NBD_REP_FLAG_ERROR)
		return error_reply(h, type, payload, len);
	if (!row->take || type != row->item)
		return session_error(h, EPROTO, "handshake: unexpected option reply type %" PRIu32
				     " to %s", type, option_name(row->option));
	return row->take(h, &r);
}

int option_plain_newstyle(struct nbd_handle *h)
{
	return h->settings.opt_mode ? end_of_plan(h)
				    : send_option(h, option_row(NBD_OPT_EXPORT_NAME));
}
