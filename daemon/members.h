/* Members of a C struct as members of a JSON object, by a table; for state.c. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <json-c/json.h>

#include "lib/util/macro.h"

enum member_type {
	MEMBER_BOOL,		/* bool */
	MEMBER_U16, MEMBER_U32, MEMBER_U64,
	MEMBER_WORD,		/* unsigned, as one of WORDS */
	MEMBER_TEXT,		/* char[MAX], NUL-terminated */
};

struct member {
	const char *name;
	enum member_type type;
	size_t offset;
	uint64_t min, max;		/* of numbers; of a text, MAX is its array's size */
	const char *const *words;	/* MEMBER_WORD: MAX of them */
	bool optional;			/* it may be missing: what was there stays */
};

#define MEMBER(s, m) .offset = offsetof(struct s, m)
#define MEMBER_STRING(s, m) \
	MEMBER_TEXT, MEMBER(s, m), .max = sizeof(((struct s *)0)->m)

/* Add VALUE (taken) to O: 0, or -ENOMEM (also for NULL, so that calls can be nested). */
_must_check_ int member_add(struct json_object *o, const char *name,
			    struct json_object *value);
/* The member NAME of O, of TYPE; -EINVAL with a sentence in ERROR. */
_must_check_ int member_get(struct json_object *o, const char *name, enum json_type type,
			    struct json_object **ret, char *error, size_t size);

_must_check_ int members_write(struct json_object *o, const struct member *table, size_t n,
			       const void *from);
/* Every member must be there, unless it is optional, and fit; -EINVAL with a sentence in ERROR. */
_must_check_ int members_read(struct json_object *o, const struct member *table, size_t n,
			      void *into, char *error, size_t size);
