/* Option haggling ("Newstyle negotiation"): one option at a time, by a plan. */
#pragma once

#include <libnbd.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/util/buffer.h"

struct nbd_handle;
struct option_row;

#define OPTION_MESSAGE_MAX 512

/* Which options are sent, one after the other. */
enum plan {
	PLAN_CONNECT,		/* after the hello, to transmission */
	PLAN_CONNECT_OPT_MODE,	/* after the hello, to the user's choice */
	PLAN_GO,
	PLAN_INFO,
	PLAN_ABORT,
	PLAN_LIST,
	PLAN_STARTTLS,
	PLAN_STRUCTURED_REPLY,
	PLAN_EXTENDED_HEADERS,
	PLAN_LIST_META_CONTEXT,
	PLAN_SET_META_CONTEXT,
	PLANS,
};

struct option_exchange {
	const struct option_row *row;	/* under way */
	uint8_t plan, step;
	bool by_user;			/* begun by nbd_aio_opt_*; ends in NEGOTIATING */
	unsigned replies;		/* to this option */
	unsigned items;			/* exports or contexts among them */
	int64_t last_reply;		/* type of the last final reply, -1 none */
	int error;			/* errno of the user's option */
	char message[OPTION_MESSAGE_MAX];	/* and in words */
	struct buffer in;		/* what the server sent and is not acted on yet */
	char **queries;			/* of a meta context option; NULL: those wanted */
	nbd_list_callback list;
	nbd_context_callback context;
	nbd_completion_callback completion;
};

/* Begin PLAN on behalf of the user: callbacks and queries are those that H->option holds
 * already.  0, or -1 with the error set. */
_must_check_ int option_begin(struct nbd_handle *h, enum plan plan);

/* Go on with the plan: send the next option that is wanted, or come to its end. */
_must_check_ int option_next(struct nbd_handle *h, enum plan plan);

/* Go on with the plan after TLS has become active. */
_must_check_ int option_continue(struct nbd_handle *h);

/* A reply has come: 0, or -1 with the error set. */
_must_check_ int option_reply_take(struct nbd_handle *h, uint32_t option, uint32_t type,
				   const uint8_t *payload, size_t len);
/* The server is newstyle but not fixed: NBD_OPT_EXPORT_NAME is all there is. */
_must_check_ int option_plain_newstyle(struct nbd_handle *h);

/* The user's option is over: ERROR is 0 or an errno. */
void option_finish(struct nbd_handle *h, int error);

/* Free the callbacks and buffers. */
void option_clear(struct option_exchange *o);

/* Free a copied list of queries. */
void queries_free(char **queries);
