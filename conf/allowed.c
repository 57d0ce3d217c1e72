/* What a key may be set to, in words. */
#include <inttypes.h>

#include "conf/internal.h"
#include "lib/util/clock.h"

char *conf_exact_usec(char buf[static FORMAT_MAX], uint64_t usec)
{
	static const struct {
		uint64_t usec;
		const char *name;
	} units[] = {
		{ 24 * 60 * USEC_PER_MINUTE, "d" }, { 60 * USEC_PER_MINUTE, "h" },
		{ USEC_PER_MINUTE, "min" }, { USEC_PER_SEC, "s" }, { USEC_PER_MSEC, "ms" },
		{ 1, "us" },
	};
	size_t i = 0;

	if (usec == 0 || usec == USEC_INFINITY) {
		snprintf(buf, FORMAT_MAX, usec ? "infinity" : "0");
		return buf;
	}
	while (usec % units[i].usec)
		i++;
	snprintf(buf, FORMAT_MAX, "%" PRIu64 "%s", usec / units[i].usec, units[i].name);
	return buf;
}

/* `off, allow or require` */
static void list_words(char *buf, size_t size, const char *const *words)
{
	size_t len = 0;

	for (size_t i = 0; words[i] && len < size; i++) {
		const char *before = !i ? "" : words[i + 1] ? ", " : " or ";

		len += (size_t)snprintf(buf + len, size - len, "%s%s", before, words[i]);
	}
}

static void allowed_string(const struct conf_key *key, char *buf)
{
	if (key->rules & CONF_URI)
		snprintf(buf, CONF_ALLOWED_MAX, "nbd://HOST[:PORT]/EXPORT, "
			 "nbd+unix:///EXPORT?socket=PATH, or nbds for TLS instead of nbd");
	else
		snprintf(buf, CONF_ALLOWED_MAX, "%s of at most %" PRIu64 " bytes%s%s",
			 key->rules & CONF_PATH ? "an absolute path" : "a text", key->max,
			 key->min ? "" : ", which may be empty",
			 key->rules & CONF_NO_NAME ? ", not beginning with @" : "");
}

static void allowed_usec(const struct conf_key *key, char *buf)
{
	char min[FORMAT_MAX], max[FORMAT_MAX];

	snprintf(buf, CONF_ALLOWED_MAX, "%sa time from %s to %s%s%s",
		 key->rules & CONF_ZERO ? "0, or " : "", conf_exact_usec(min, key->min),
		 conf_exact_usec(max, key->max),
		 key->rules & CONF_WHOLE_SECONDS ? " in whole seconds" : "",
		 key->rules & CONF_INFINITY ? ", or infinity" : "");
}

char *conf_key_allowed(const struct conf_key *key, char buf[static CONF_ALLOWED_MAX])
{
	switch (key->type) {
	case CONF_STRING:
		allowed_string(key, buf);
		break;
	case CONF_STRINGS:
		snprintf(buf, CONF_ALLOWED_MAX, "up to %" PRIu64 " of HOST, HOST:PORT, "
			 "[ADDRESS]:PORT or /SOCKET, separated by commas", key->max);
		break;
	case CONF_U32:
	case CONF_AUTO_U32:
		snprintf(buf, CONF_ALLOWED_MAX, "%sa number from %" PRIu64 " to %" PRIu64,
			 key->type == CONF_AUTO_U32 ? "auto or " : "", key->min, key->max);
		break;
	case CONF_BOOL:
		snprintf(buf, CONF_ALLOWED_MAX, "yes or no");
		break;
	case CONF_ENUM:
		list_words(buf, CONF_ALLOWED_MAX, key->words);
		break;
	case CONF_USEC:
		allowed_usec(key, buf);
		break;
	case CONF_SIZE:
		snprintf(buf, CONF_ALLOWED_MAX, "%s%s from %" PRIu64 " to %" PRIu64 " bytes",
			 key->rules & CONF_ZERO ? "0, or " : "",
			 key->rules & CONF_POWER_OF_2 ? "a power of two" : "a size",
			 key->min, key->max);
		break;
	case CONF_NOTHING:
		snprintf(buf, CONF_ALLOWED_MAX, "anything");
		break;
	}
	return buf;
}
