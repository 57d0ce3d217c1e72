/* The keys of one device: made, freed, copied, compared, and given back as text. */
#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "conf/internal.h"
#include "lib/util/cleanup.h"

#define const_member(k, key, type) ((type const *)((const char *)(k) + (key)->offset))

void conf_free_strings(char **list, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(list[i]);
}

void device_keys_unset(struct device_keys *k, const struct conf_key *key)
{
	if (key->type == CONF_STRINGS) {
		conf_free_strings(k->addresses, k->n_addresses);
		k->n_addresses = 0;
	} else if (key->type == CONF_STRING) {
		free(STEAL_PTR(*conf_member(k, key, char *)));
	} else {
		conf_set_value(key, k, key->initial);
	}
	k->set &= ~conf_key_bit(key);
}

static void unset_all(struct device_keys *k)
{
	for (size_t i = 0; i < n_conf_keys; i++)
		device_keys_unset(k, &conf_keys[i]);
}

void device_keys_init(struct device_keys *k)
{
	*k = (struct device_keys){};
	unset_all(k);
}

void device_keys_deinit(struct device_keys *k)
{
	unset_all(k);
}

static int copy_string(char **dst, const char *src)
{
	*dst = src ? strdup(src) : NULL;
	return src && !*dst ? -ENOMEM : 0;
}

static int copy_strings(struct device_keys *dst, const struct device_keys *src)
{
	int r = 0;

	for (size_t i = 0; i < src->n_addresses && r == 0; i++) {
		r = copy_string(&dst->addresses[i], src->addresses[i]);
		dst->n_addresses += r == 0;
	}
	for (size_t i = 0; i < n_conf_keys && r == 0; i++)
		if (conf_keys[i].type == CONF_STRING)
			r = copy_string(conf_member(dst, &conf_keys[i], char *),
					*const_member(src, &conf_keys[i], char *));
	return r;
}

int device_keys_copy(struct device_keys *dst, const struct device_keys *src)
{
	struct device_keys copy = *src;
	int r;

	copy.n_addresses = 0;
	for (size_t i = 0; i < n_conf_keys; i++)
		if (conf_keys[i].type == CONF_STRING)
			*conf_member(&copy, &conf_keys[i], char *) = NULL;
	r = copy_strings(&copy, src);
	if (r < 0)
		device_keys_deinit(&copy);
	else
		*dst = copy;
	return r;
}

static int join_addresses(const struct device_keys *k, char **ret)
{
	struct buffer text = BUFFER_NULL(CONF_VALUE_MAX + 1);
	int r = 0;

	for (size_t i = 0; i < k->n_addresses && r == 0; i++) {
		if (i)
			r = buffer_append(&text, ",", 1);
		if (r == 0)
			r = buffer_append(&text, k->addresses[i], strlen(k->addresses[i]));
	}
	if (r == 0 && k->n_addresses)
		r = buffer_append(&text, "", 1);
	if (r < 0) {
		buffer_clear(&text);
		return -ENOMEM;
	}
	*ret = (char *)text.data;
	return 0;
}

/* The value of KEY (not addresses) as text, in BUF or in K; NULL: it has none. */
static const char *value_text(const struct device_keys *k, const struct conf_key *key,
			      char buf[static FORMAT_MAX])
{
	switch (key->type) {
	case CONF_STRING:
		return *const_member(k, key, char *);
	case CONF_BOOL:
		return *const_member(k, key, bool) ? "yes" : "no";
	case CONF_ENUM:
		return key->words[*const_member(k, key, unsigned)];
	case CONF_USEC:
		return conf_exact_usec(buf, *const_member(k, key, uint64_t));
	case CONF_AUTO_U32:
		if (*const_member(k, key, uint32_t) == 0)
			return "auto";
		/* fallthrough */
	case CONF_U32:
		snprintf(buf, FORMAT_MAX, "%" PRIu32, *const_member(k, key, uint32_t));
		return buf;
	case CONF_SIZE:
		snprintf(buf, FORMAT_MAX, "%" PRIu64, *const_member(k, key, uint64_t));
		return buf;
	case CONF_STRINGS:
	case CONF_NOTHING:
		break;
	}
	return NULL;
}

int device_keys_get(const struct device_keys *k, const char *name, char **ret)
{
	const struct conf_key *key = conf_key_find(name, NULL);
	char buf[FORMAT_MAX];

	if (!key || key->type == CONF_NOTHING)
		return -ENOENT;
	if (key->type == CONF_STRINGS)
		return join_addresses(k, ret);
	return copy_string(ret, value_text(k, key, buf));
}

static bool equal_text(const char *a, const char *b)
{
	return a && b ? strcmp(a, b) == 0 : a == b;
}

static bool equal_addresses(const struct device_keys *a, const struct device_keys *b)
{
	if (a->n_addresses != b->n_addresses)
		return false;
	for (size_t i = 0; i < a->n_addresses; i++)
		if (strcmp(a->addresses[i], b->addresses[i]) != 0)
			return false;
	return true;
}

uint64_t device_keys_differ(const struct device_keys *a, const struct device_keys *b)
{
	char buf_a[FORMAT_MAX], buf_b[FORMAT_MAX];
	uint64_t differ = 0;

	for (size_t i = 0; i < n_conf_keys; i++) {
		const struct conf_key *key = &conf_keys[i];
		bool same = key->type == CONF_STRINGS ? equal_addresses(a, b) :
			equal_text(value_text(a, key, buf_a), value_text(b, key, buf_b));

		if (!same)
			differ |= conf_key_bit(key);
	}
	return differ;
}

bool device_keys_equal(const struct device_keys *a, const struct device_keys *b)
{
	return device_keys_differ(a, b) == 0;
}

enum conf_change conf_change_of(uint64_t keys)
{
	enum conf_change change = CONF_LIVE;

	for (size_t i = 0; i < n_conf_keys; i++)
		if (keys & conf_key_bit(&conf_keys[i]))
			change = MAX(change, conf_keys[i].change);
	return change;
}

int device_keys_keep(struct device_keys *k, const struct device_keys *from, uint64_t keys)
{
	char error[CONF_ERROR_MAX];

	for (size_t i = 0; i < n_conf_keys; i++) {
		const struct conf_key *key = &conf_keys[i];
		_cleanup_free_ char *text = NULL;
		int r;

		if (!(keys & conf_key_bit(key)))
			continue;
		r = device_keys_get(from, key->name, &text);
		if (r >= 0 && text)
			r = device_keys_set(k, key->name, text, error);
		else if (r >= 0)
			device_keys_unset(k, key);
		if (r < 0)
			return -ENOMEM;		/* the value was good before */
	}
	return 0;
}

static void unset(struct device_keys *k, const char *name)
{
	device_keys_unset(k, conf_key_find(name, NULL));
}

int device_keys_overlay(struct device_keys *k, const struct device_keys *over)
{
	bool elsewhere = device_keys_given(over, "uri") || device_keys_given(over, "addresses");

	if (elsewhere) {
		unset(k, "uri");
		unset(k, "addresses");
		unset(k, "port");
		unset(k, "export");
	}
	return device_keys_keep(k, over, over->set);
}
