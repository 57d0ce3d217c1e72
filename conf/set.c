/* Values from text: one function a type, and the sentence when it does not fit. */
#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "conf/internal.h"
#include "lib/util/cleanup.h"
#include "lib/util/clock.h"
#include "lib/util/escape.h"

/* Follows `KEY: 'VALUE' is `. */
static const char *const verdicts[] = {
	[CONF_OUT_OF_RANGE] = "out of range",
	[CONF_PART_OF_SECOND] = "not in whole seconds",
	[CONF_ODD_SIZE] = "not a power of two",
	[CONF_NO_NUMBER] = "not a number",
	[CONF_NO_SIZE] = "not a size",
	[CONF_NO_TIME] = "not a time",
	[CONF_NO_TRUTH] = "neither yes nor no",
	[CONF_NO_WORD] = "none of its values",
	[CONF_EMPTY] = "empty",
	[CONF_TOO_LONG] = "too long",
	[CONF_NOT_PRINTABLE] = "not printable UTF-8 text",
	[CONF_RELATIVE] = "not an absolute path",
	[CONF_NO_URI] = "not an NBD URI",
	[CONF_TOO_MANY] = "too long a list",
	[CONF_NO_SERVERS] = "not a list of servers",
	[CONF_NAME] = "a name in a file, which no connection can read",
};

static enum conf_verdict check_range(const struct conf_key *key, uint64_t v)
{
	if ((v == 0 && key->rules & CONF_ZERO) ||
	    (v == USEC_INFINITY && key->rules & CONF_INFINITY))
		return CONF_GOOD;
	if (v < key->min || v > key->max)
		return CONF_OUT_OF_RANGE;
	if (key->rules & CONF_WHOLE_SECONDS && v % USEC_PER_SEC)
		return CONF_PART_OF_SECOND;
	if (key->rules & CONF_POWER_OF_2 && v & (v - 1))
		return CONF_ODD_SIZE;
	return CONF_GOOD;
}

/* R is what the parser of V said, KIND what V then is not. */
static enum conf_verdict judge(const struct conf_key *key, int r, uint64_t v,
			       enum conf_verdict kind)
{
	if (r == -ERANGE)
		return CONF_OUT_OF_RANGE;
	return r < 0 ? kind : check_range(key, v);
}

static enum conf_verdict set_u32(const struct conf_key *key, struct device_keys *k,
				 const char *text)
{
	enum conf_verdict verdict;
	uint64_t v = 0;
	int r;

	if (key->type == CONF_AUTO_U32 && strcmp(text, "auto") == 0) {
		*conf_member(k, key, uint32_t) = 0;
		return CONF_GOOD;
	}
	r = parse_u64(text, &v);
	verdict = judge(key, r, v, CONF_NO_NUMBER);
	if (verdict == CONF_GOOD)
		*conf_member(k, key, uint32_t) = (uint32_t)v;
	return verdict;
}

static enum conf_verdict set_size(const struct conf_key *key, struct device_keys *k,
				  const char *text)
{
	enum conf_verdict verdict;
	uint64_t v = 0;
	int r = parse_size(text, &v);

	verdict = judge(key, r, v, CONF_NO_SIZE);
	if (verdict == CONF_GOOD)
		*conf_member(k, key, uint64_t) = v;
	return verdict;
}

static enum conf_verdict set_usec(const struct conf_key *key, struct device_keys *k,
				  const char *text)
{
	enum conf_verdict verdict;
	uint64_t v = 0;
	int r = parse_usec(text, &v);

	verdict = judge(key, r, v, CONF_NO_TIME);
	if (verdict == CONF_GOOD)
		*conf_member(k, key, uint64_t) = v;
	return verdict;
}

static enum conf_verdict set_bool(const struct conf_key *key, struct device_keys *k,
				  const char *text)
{
	return parse_bool(text, conf_member(k, key, bool)) < 0 ? CONF_NO_TRUTH : CONF_GOOD;
}

static enum conf_verdict set_enum(const struct conf_key *key, struct device_keys *k,
				  const char *text)
{
	for (unsigned i = 0; key->words[i]; i++)
		if (strcmp(text, key->words[i]) == 0) {
			*conf_member(k, key, unsigned) = i;
			return CONF_GOOD;
		}
	return CONF_NO_WORD;
}

static bool is_nbd_uri(const char *text)
{
	static const char *const schemes[] = { "nbd", "nbd+unix", "nbd+vsock",
					       "nbds", "nbds+unix", "nbds+vsock" };
	size_t len = strcspn(text, ":");

	if (strncmp(text + len, "://", 3) != 0 || strchr(text, ' '))
		return false;
	for (size_t i = 0; i < ARRAY_SIZE(schemes); i++)
		if (strlen(schemes[i]) == len && strncmp(schemes[i], text, len) == 0)
			return true;
	return false;
}

static enum conf_verdict set_string(const struct conf_key *key, struct device_keys *k,
				    const char *text)
{
	size_t len = strlen(text);
	char *copy;

	if (len < key->min)
		return CONF_EMPTY;
	if (len > key->max)
		return CONF_TOO_LONG;
	if (!text_is_printable(text, len))
		return CONF_NOT_PRINTABLE;
	if (key->rules & CONF_PATH && *text != '/')
		return CONF_RELATIVE;
	if (key->rules & CONF_URI && !is_nbd_uri(text))
		return CONF_NO_URI;
	if (key->rules & CONF_NO_NAME && text[strspn(text, " \t")] == '@')
		return CONF_NAME;
	copy = strdup(text);
	if (!copy)
		return CONF_NO_MEMORY;
	free(*conf_member(k, key, char *));
	*conf_member(k, key, char *) = copy;
	return CONF_GOOD;
}

/* ITEM without the blanks around it; they are cut off in place. */
static char *trim(char *item)
{
	char *end;

	item += strspn(item, " \t");
	end = item + strlen(item);
	while (end > item && (end[-1] == ' ' || end[-1] == '\t'))
		*--end = '\0';
	return item;
}

static enum conf_verdict split_addresses(char *text, char **list, size_t *n)
{
	struct conf_address address;
	char *item;

	while ((item = strsep(&text, ","))) {
		item = trim(item);
		if (*n == CONF_ADDRESSES_MAX)
			return CONF_TOO_MANY;
		if (conf_parse_address(item, &address) < 0)
			return CONF_NO_SERVERS;
		list[*n] = strdup(item);
		if (!list[*n])
			return CONF_NO_MEMORY;
		++*n;
	}
	return CONF_GOOD;
}

static enum conf_verdict set_addresses(const struct conf_key *key, struct device_keys *k,
				       const char *text)
{
	_cleanup_free_ char *copy = NULL;
	char *list[CONF_ADDRESSES_MAX] = {};
	enum conf_verdict verdict;
	size_t n = 0;

	if (strlen(text) > CONF_VALUE_MAX)
		return CONF_TOO_LONG;
	copy = strdup(text);
	if (!copy)
		return CONF_NO_MEMORY;
	verdict = split_addresses(copy, list, &n);
	if (verdict != CONF_GOOD) {
		conf_free_strings(list, n);
		return verdict;
	}
	conf_free_strings(k->addresses, k->n_addresses);
	memcpy(k->addresses, list, sizeof(list));
	k->n_addresses = n;
	return CONF_GOOD;
}

static enum conf_verdict set_nothing(const struct conf_key *key, struct device_keys *k,
				     const char *text)
{
	return CONF_GOOD;
}

enum conf_verdict conf_set_value(const struct conf_key *key, struct device_keys *k,
				 const char *text)
{
	static enum conf_verdict (*const set[])(const struct conf_key *, struct device_keys *,
						const char *) = {
		[CONF_STRING] = set_string, [CONF_STRINGS] = set_addresses,
		[CONF_U32] = set_u32, [CONF_AUTO_U32] = set_u32, [CONF_SIZE] = set_size,
		[CONF_BOOL] = set_bool, [CONF_ENUM] = set_enum, [CONF_USEC] = set_usec,
		[CONF_NOTHING] = set_nothing,
	};

	return set[key->type](key, k, text);
}

char *conf_quote(char buf[static CONF_QUOTED_MAX], const char *text)
{
	return escape_text(buf, CONF_QUOTED_MAX, text, strlen(text));
}

int conf_fail(char error[static CONF_ERROR_MAX], int r, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(error, CONF_ERROR_MAX, format, ap);
	va_end(ap);
	return r;
}

int conf_unknown(const char *name, const char *const *extra, char error[static CONF_ERROR_MAX])
{
	const struct conf_alias *alias = conf_alias_find(name);
	const char *nearest;
	char quoted[CONF_QUOTED_MAX];

	if (alias)
		return conf_fail(error, -EINVAL, "%s: %s", name, alias->refused);
	nearest = conf_nearest(name, extra);
	conf_quote(quoted, name);
	if (nearest)
		return conf_fail(error, -EINVAL, "unknown key '%s'; did you mean '%s'?", quoted,
				 nearest);
	return conf_fail(error, -EINVAL, "unknown key '%s'; nbdd.conf(5) lists all keys", quoted);
}

int conf_set_auto(bool *automatic, const char *text, char error[static CONF_ERROR_MAX])
{
	char quoted[CONF_QUOTED_MAX];

	if (parse_bool(text, automatic) < 0)
		return conf_fail(error, -EINVAL, "auto: '%s' is %s; allowed is yes or no",
				 conf_quote(quoted, text), verdicts[CONF_NO_TRUTH]);
	return 0;
}

int device_keys_set(struct device_keys *k, const char *name, const char *text,
		    char error[static CONF_ERROR_MAX])
{
	char allowed[CONF_ALLOWED_MAX], quoted[CONF_QUOTED_MAX];
	enum conf_verdict verdict;
	const char *flag;
	const struct conf_key *key = conf_key_find(name, &flag);

	if (!key)
		return conf_unknown(name, NULL, error);
	if (!text)
		text = flag;
	if (!text)
		return conf_fail(error, -EINVAL, "%s: needs a value; allowed is %s", key->name,
			    conf_key_allowed(key, allowed));
	verdict = conf_set_value(key, k, text);
	if (verdict == CONF_NO_MEMORY)
		return conf_fail(error, -ENOMEM, "%s: out of memory", key->name);
	if (verdict != CONF_GOOD)
		return conf_fail(error, verdict == CONF_OUT_OF_RANGE ? -ERANGE : -EINVAL,
			    "%s: '%s' is %s; allowed is %s", key->name,
			    conf_quote(quoted, text), verdicts[verdict],
			    conf_key_allowed(key, allowed));
	k->set |= conf_key_bit(key);
	return 0;
}
