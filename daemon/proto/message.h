/* One Varlink message: bytes to JSON and back.  Private to daemon/proto; the fuzzer and
 * the tests use it, too. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include <json-c/json.h>

#include "lib/util/macro.h"

struct varlink_limits {
	size_t depth;			/* nested objects and arrays */
	size_t containers;		/* objects and arrays */
	size_t members;			/* commas and colons */
};

extern const struct varlink_limits varlink_call_limits, varlink_reply_limits;

/* A call, as it came. */
struct varlink_message {
	struct json_object *root;
	struct json_object *params;	/* borrowed from root; NULL when absent */
	const char *method;		/* likewise */
	bool more, oneway;
};

#define VARLINK_MESSAGE_NULL ((struct varlink_message){ .root = NULL })

void varlink_message_deinit(struct varlink_message *m);

/* Parse LEN bytes of TEXT (no NUL among them) as one JSON object.  -EBADMSG: it is not
 * one; -E2BIG: more than LIMITS allow; -ENOMEM.  *RET_WHY is then a static sentence. */
_must_check_ int varlink_parse(const char *text, size_t len,
			       const struct varlink_limits *limits,
			       struct json_object **ret, const char **ret_why);

/* The same for a call, whose members are checked, too. */
_must_check_ int varlink_message_parse(const char *text, size_t len,
				       struct varlink_message *ret, const char **ret_why);

static inline void cleanup_json_p(struct json_object **o)
{
	json_object_put(*o);
}
#define _cleanup_json_ _cleanup_(cleanup_json_p)

/* Put VALUE (taken) into OBJECT under KEY: 0, or -ENOMEM (also for a NULL value, so that
 * constructors can be nested). */
_must_check_ int varlink_json_add(struct json_object *object, const char *key,
				  struct json_object *value);

/* JSON is UTF-8, while what servers say may be any bytes: replace, in JSON text, each
 * byte that is not part of a UTF-8 sequence by `?`. */
void varlink_make_utf8(char *text, size_t len);
