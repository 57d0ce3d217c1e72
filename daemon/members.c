#include "daemon/members.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

int member_add(struct json_object *o, const char *name, struct json_object *value)
{
	if (o && value && json_object_object_add(o, name, value) == 0)
		return 0;
	json_object_put(value);
	return -ENOMEM;
}

int member_get(struct json_object *o, const char *name, enum json_type type,
	       struct json_object **ret, char *error, size_t size)
{
	struct json_object *value = NULL;

	if (json_object_object_get_ex(o, name, &value) && json_object_is_type(value, type)) {
		*ret = value;
		return 0;
	}
	snprintf(error, size, "'%s': expected %s, found %s", name, json_type_to_name(type),
		 value ? json_type_to_name(json_object_get_type(value)) : "nothing");
	return -EINVAL;
}

static struct json_object *write_value(const struct member *m, const void *p)
{
	switch (m->type) {
	case MEMBER_BOOL:
		return json_object_new_boolean(*(const bool *)p);
	case MEMBER_U16:
		return json_object_new_int64(*(const uint16_t *)p);
	case MEMBER_U32:
		return json_object_new_int64(*(const uint32_t *)p);
	case MEMBER_U64:
		return json_object_new_int64((int64_t)*(const uint64_t *)p);
	case MEMBER_WORD:
		return json_object_new_string(m->words[*(const unsigned *)p]);
	case MEMBER_TEXT:
		return json_object_new_string(p);
	}
	return NULL;
}

int members_write(struct json_object *o, const struct member *table, size_t n,
		  const void *from)
{
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++)
		r = member_add(o, table[i].name,
			       write_value(&table[i], (const char *)from + table[i].offset));
	return r;
}

static int read_number(const struct member *m, struct json_object *value, void *p,
		       char *error, size_t size)
{
	int64_t v = json_object_get_int64(value);

	if (v < 0 || (uint64_t)v < m->min || (uint64_t)v > m->max) {
		snprintf(error, size, "'%s' is %lld, expected %llu to %llu", m->name,
			 (long long)v, (unsigned long long)m->min,
			 (unsigned long long)m->max);
		return -EINVAL;
	}
	if (m->type == MEMBER_U16)
		*(uint16_t *)p = (uint16_t)v;
	else if (m->type == MEMBER_U32)
		*(uint32_t *)p = (uint32_t)v;
	else
		*(uint64_t *)p = (uint64_t)v;
	return 0;
}

static int read_text(const struct member *m, struct json_object *value, char *p, char *error,
		     size_t size)
{
	const char *text = json_object_get_string(value);
	size_t len = (size_t)json_object_get_string_len(value);

	if (len >= m->max || memchr(text, '\0', len)) {
		snprintf(error, size, "'%s' is a text of %zu bytes, expected at most %zu and "
			 "no zero byte", m->name, len, (size_t)m->max - 1);
		return -EINVAL;
	}
	memcpy(p, text, len + 1);
	return 0;
}

static int read_word(const struct member *m, struct json_object *value, unsigned *p,
		     char *error, size_t size)
{
	for (unsigned i = 0; i < m->max; i++)
		if (strcmp(m->words[i], json_object_get_string(value)) == 0) {
			*p = i;
			return 0;
		}
	snprintf(error, size, "'%s' is a word that is not known", m->name);
	return -EINVAL;
}

static int read_value(const struct member *m, struct json_object *value, void *p, char *error,
		      size_t size)
{
	switch (m->type) {
	case MEMBER_BOOL:
		*(bool *)p = json_object_get_boolean(value);
		return 0;
	case MEMBER_U16:
	case MEMBER_U32:
	case MEMBER_U64:
		return read_number(m, value, p, error, size);
	case MEMBER_WORD:
		return read_word(m, value, p, error, size);
	case MEMBER_TEXT:
		return read_text(m, value, p, error, size);
	}
	return -EINVAL;
}

int members_read(struct json_object *o, const struct member *table, size_t n, void *into,
		 char *error, size_t size)
{
	static const enum json_type types[] = {
		[MEMBER_BOOL] = json_type_boolean, [MEMBER_U16] = json_type_int,
		[MEMBER_U32] = json_type_int, [MEMBER_U64] = json_type_int,
		[MEMBER_WORD] = json_type_string, [MEMBER_TEXT] = json_type_string,
	};
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++) {
		const struct member *m = &table[i];
		struct json_object *value;

		if (m->optional && !json_object_object_get_ex(o, m->name, NULL))
			continue;
		r = member_get(o, m->name, types[m->type], &value, error, size);
		if (r == 0)
			r = read_value(m, value, (char *)into + m->offset, error, size);
	}
	return r;
}
