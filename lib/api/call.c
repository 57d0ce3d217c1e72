#include "lib/api/call.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "lib/util/escape.h"

bool call_wrong_state(struct nbd_handle *h, const struct call *call)
{
	enum phase p = atomic_load(&h->phase);
	char phrase[200];

	error_set(call->name, p == PHASE_CREATED ? ENOTCONN : EINVAL,
		  "invalid state: %s: the handle must be %s", session_state_name(h),
		  states_phrase(phrase, sizeof(phrase), call->states));
	return false;
}

bool call_enum(const struct call *call, int value, int count, const char *name)
{
	if (value >= 0 && value < count)
		return true;
	error_set(call->name, EINVAL, "%s: invalid value for parameter: %d", name, value);
	return false;
}

bool call_flags(const struct call *call, uint32_t value, uint32_t mask, const char *name)
{
	if (!(value & ~mask))
		return true;
	error_set(call->name, EINVAL, "%s: invalid value for flag: 0x%" PRIx32, name, value);
	return false;
}

void call_log_leave_number(struct nbd_handle *h, int64_t ret)
{
	const char *text = error_text();

	if (ret == -1)
		debug_log(h, "leave: error=\"%s\"", text ? text : "");
	else
		debug_log(h, "leave: ret=%" PRIi64, ret);
}

void call_log_leave_string(struct nbd_handle *h, const char *ret)
{
	const char *text = error_text();

	if (ret)
		debug_log(h, "leave: ret=%s", DEBUG_STRING(ret));
	else
		debug_log(h, "leave: error=\"%s\"", text ? text : "");
}

void call_log_leave_pointer(struct nbd_handle *h, const void *ret)
{
	if (ret)
		debug_log(h, "leave: ret=%p", ret);
	else
		call_log_leave_string(h, NULL);
}

const char *debug_string(char *dst, const char *text)
{
	char escaped[DEBUG_TEXT_MAX - 3];

	if (!text)
		return "NULL";
	snprintf(dst, DEBUG_TEXT_MAX, "\"%s\"",
		 escape_text(escaped, sizeof(escaped), text, strlen(text)));
	return dst;
}

const char *debug_strv(char *dst, char **list)
{
	size_t len = 1;

	if (!list)
		return "NULL";
	strcpy(dst, "[");
	/* Room for a separator, quotes, some text and the end. */
	for (size_t i = 0; list[i] && len < DEBUG_TEXT_MAX - 16; i++) {
		if (i)
			len += (size_t)snprintf(dst + len, DEBUG_TEXT_MAX - len, ", ");
		dst[len++] = '"';
		escape_text(dst + len, DEBUG_TEXT_MAX - len - 3, list[i], strlen(list[i]));
		len += strlen(dst + len);
		dst[len++] = '"';
	}
	strcpy(dst + len, "]");
	return dst;
}

int call_set_string(struct nbd_handle *h, char **field, const char *value)
{
	char *copy = call_copy_string(h, value);

	if (!copy)
		return -1;
	free(*field);
	*field = copy;
	return 0;
}

char *call_copy_string(struct nbd_handle *h, const char *value)
{
	char *copy = strdup(value);

	if (!copy)
		session_error(h, ENOMEM, "no memory for a string");
	return copy;
}
