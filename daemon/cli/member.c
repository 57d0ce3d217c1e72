#include <string.h>

#include "daemon/cli/cli.h"
#include "lib/util/escape.h"

struct json_object *member(struct json_object *o, const char *key)
{
	struct json_object *found = NULL;

	if (json_object_is_type(o, json_type_object))
		json_object_object_get_ex(o, key, &found);
	return found;
}

static char *escape_string(char *buf, size_t size, struct json_object *o)
{
	if (!json_object_is_type(o, json_type_string))
		return clean_text(buf, size, "", 0);
	return clean_text(buf, size, json_object_get_string(o),
			   (size_t)json_object_get_string_len(o));
}

char *member_text(char buf[static CLI_TEXT_MAX], struct json_object *o, const char *key)
{
	return escape_string(buf, CLI_TEXT_MAX, member(o, key));
}

uint64_t member_u64(struct json_object *o, const char *key)
{
	struct json_object *m = member(o, key);

	return json_object_is_type(m, json_type_int) ? json_object_get_uint64(m) : 0;
}

bool member_bool(struct json_object *o, const char *key)
{
	return json_object_get_boolean(member(o, key));
}

char *member_list(char buf[static CLI_TEXT_MAX], struct json_object *o, const char *key,
		  const char *between)
{
	struct json_object *list = member(o, key);
	size_t n = json_object_is_type(list, json_type_array) ?
		json_object_array_length(list) : 0;
	size_t used = 0, gap = strlen(between);

	buf[0] = '\0';
	for (size_t i = 0; i < n && CLI_TEXT_MAX - used > gap + 8; i++) {
		if (i) {
			memcpy(buf + used, between, gap + 1);
			used += gap;
		}
		escape_string(buf + used, CLI_TEXT_MAX - used,
			      json_object_array_get_idx(list, i));
		used += strlen(buf + used);
	}
	return buf;
}
