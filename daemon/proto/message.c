#include "daemon/proto/message.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "daemon/proto/varlink.h"
#include "lib/util/cleanup.h"
#include "lib/util/utf8.h"

const struct varlink_limits varlink_call_limits = {
	.depth = VARLINK_DEPTH_MAX,
	.containers = VARLINK_CONTAINERS_MAX,
	.members = VARLINK_MEMBERS_MAX,
};

/* The daemon is trusted more than its callers, and describes up to 1,024 devices. */
const struct varlink_limits varlink_reply_limits = {
	.depth = VARLINK_DEPTH_MAX,
	.containers = 64 * 1024,
	.members = 1024 * 1024,
};

static bool is_utf8(const char *text, size_t len)
{
	uint32_t c;

	for (size_t i = 0, n; i < len; i += n)
		if (!(n = utf8_next(text + i, len - i, &c)))
			return false;
	return true;
}

/* json-c spends up to a kilobyte on two bytes (`{}`), so that what a message will cost is
 * counted before it is parsed.  A NUL inside of a string is turned away, because C would
 * see a shorter string than the one that was sent. */
static int check_cost(const char *text, size_t len, const struct varlink_limits *limits,
		      const char **ret_why)
{
	size_t containers = 0, members = 0;
	bool in_string = false;

	for (size_t i = 0; i < len; i++) {
		if (in_string && text[i] == '\\') {
			if (len - i >= 6 && memcmp(text + i, "\\u0000", 6) == 0) {
				*ret_why = "a string contains NUL";
				return -EBADMSG;
			}
			i++;
		} else if (text[i] == '"') {
			in_string = !in_string;
		} else if (!in_string) {
			containers += text[i] == '{' || text[i] == '[';
			members += text[i] == ',' || text[i] == ':';
		}
	}
	if (containers > limits->containers || members > limits->members) {
		*ret_why = "the message has too many elements";
		return -E2BIG;
	}
	return 0;
}

static const char *tokener_problem(enum json_tokener_error e)
{
	switch (e) {
	case json_tokener_error_depth:
		return "the message is nested too deep";
	case json_tokener_continue:
		return "the message is not a complete JSON object";
	default:
		return "the message is not JSON";
	}
}

static void cleanup_tokener_p(struct json_tokener **t)
{
	if (*t)
		json_tokener_free(*t);
}

int varlink_parse(const char *text, size_t len, const struct varlink_limits *limits,
		  struct json_object **ret, const char **ret_why)
{
	_cleanup_(cleanup_tokener_p) struct json_tokener *tokener = NULL;
	_cleanup_json_ struct json_object *root = NULL;
	int r;

	if (len > INT_MAX) {
		*ret_why = "the message is too long";
		return -E2BIG;
	}
	if (!is_utf8(text, len)) {
		*ret_why = "the message is not UTF-8";
		return -EBADMSG;
	}
	r = check_cost(text, len, limits, ret_why);
	if (r < 0)
		return r;
	*ret_why = "out of memory";
	tokener = json_tokener_new_ex((int)limits->depth);
	if (!tokener)
		return -ENOMEM;
	json_tokener_set_flags(tokener, JSON_TOKENER_STRICT);
	root = json_tokener_parse_ex(tokener, text, (int)len);
	if (json_tokener_get_error(tokener) != json_tokener_success) {
		*ret_why = tokener_problem(json_tokener_get_error(tokener));
		return -EBADMSG;
	}
	if (!json_object_is_type(root, json_type_object)) {
		*ret_why = "the message is not a JSON object";
		return -EBADMSG;
	}
	*ret = STEAL_PTR(root);
	return 0;
}

void varlink_message_deinit(struct varlink_message *m)
{
	json_object_put(m->root);
	*m = VARLINK_MESSAGE_NULL;
}

/* The member KEY of ROOT, NULL when absent or null; false: it is not of TYPE. */
static bool get_member(struct json_object *root, const char *key, enum json_type type,
		       struct json_object **ret)
{
	if (!json_object_object_get_ex(root, key, ret))
		*ret = NULL;
	return !*ret || json_object_is_type(*ret, type);
}

int varlink_message_parse(const char *text, size_t len, struct varlink_message *ret,
			  const char **ret_why)
{
	_cleanup_json_ struct json_object *root = NULL;
	struct json_object *method, *params, *more, *oneway, *upgrade;
	int r;

	r = varlink_parse(text, len, &varlink_call_limits, &root, ret_why);
	if (r < 0)
		return r;
	r = -EBADMSG;
	*ret_why = "`method` must be a string";
	if (!get_member(root, "method", json_type_string, &method) || !method)
		return r;
	*ret_why = "`parameters` must be an object";
	if (!get_member(root, "parameters", json_type_object, &params))
		return r;
	*ret_why = "`more`, `oneway` and `upgrade` must be booleans, and one alone true";
	if (!get_member(root, "more", json_type_boolean, &more) ||
	    !get_member(root, "oneway", json_type_boolean, &oneway) ||
	    !get_member(root, "upgrade", json_type_boolean, &upgrade) ||
	    (json_object_get_boolean(more) && json_object_get_boolean(oneway)))
		return r;
	*ret_why = "`upgrade` is not for this service";
	if (json_object_get_boolean(upgrade))
		return r;
	*ret = (struct varlink_message){
		.root = root,
		.params = params,
		.method = json_object_get_string(method),
		.more = json_object_get_boolean(more),
		.oneway = json_object_get_boolean(oneway),
	};
	root = NULL;
	return 0;
}

int varlink_json_add(struct json_object *object, const char *key,
		     struct json_object *value)
{
	if (object && value && json_object_object_add(object, key, value) == 0)
		return 0;
	json_object_put(value);
	return -ENOMEM;
}

void varlink_make_utf8(char *text, size_t len)
{
	uint32_t c;

	for (size_t i = 0; i < len;) {
		size_t n = utf8_next(text + i, len - i, &c);

		if (!n)
			text[i] = '?';
		i += n ? n : 1;
	}
}
