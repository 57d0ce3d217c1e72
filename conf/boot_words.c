#include "conf/boot_words.h"

#include <ctype.h>
#include <errno.h>
#include <string.h>

#include "lib/util/macro.h"

char *boot_next_word(char **rest)
{
	char *word, *to, *p = *rest;
	bool quoted = false;

	while (isspace((unsigned char)*p))
		p++;
	if (!*p)
		return NULL;
	for (word = to = p; *p && (quoted || !isspace((unsigned char)*p)); p++) {
		if (*p == '"')
			quoted = !quoted;
		else
			*to++ = *p;
	}
	*rest = *p ? p + 1 : p;
	*to = '\0';
	return word;
}

static bool is_number(const char *text)
{
	return *text && text[strspn(text, "0123456789")] == '\0';
}

static bool is_uri(const char *text)
{
	return strstr(text, "://") != NULL;
}

/* SERVER or [V6] at *REST, up to a colon or the end; *REST is behind the colon, NULL when
 * there is none.  NULL: not well formed. */
static char *take_host(char **rest)
{
	char *host = *rest, *end = NULL;

	if (*host != '[')
		return strsep(rest, ":");
	end = strchr(++host, ']');
	if (!end || (end[1] && end[1] != ':'))
		return NULL;
	*rest = end[1] ? end + 2 : NULL;
	*end = '\0';
	return host;
}

/* SERVER,EXPORT[,nbdN]; SERVER,PORT.  Of three fields the second is always an export. */
static int parse_commas(char *text, struct boot_root *s)
{
	char *second;

	s->host = strsep(&text, ",");
	if (*s->host == '[' && s->host[strlen(s->host) - 1] == ']') {
		s->host[strlen(s->host) - 1] = '\0';
		s->host++;
	}
	second = strsep(&text, ",");
	s->device = text;
	if (!text && is_number(second))
		s->port = second;
	else
		s->export_name = second;
	return text && strchr(text, ',') ? -EINVAL : 0;
}

int boot_parse_nbdroot(char *text, struct boot_root *ret)
{
	struct boot_root s = {};
	char *rest = text;

	*ret = s;
	if (is_uri(text)) {
		ret->uri = text;
		return 0;
	}
	if (strchr(text, ','))
		return parse_commas(text, ret);
	/* As of NFS, /PATH: the server is DHCP's, the export has the slash. */
	if (*text == '/') {
		ret->export_name = text;
		ret->host = text + strlen(text);
		return 0;
	}
	s.host = take_host(&rest);
	if (!s.host || strchr(s.host, '/'))
		return -EINVAL;
	if (rest && *rest == '/') {
		s.export_name = rest;
	} else if (rest) {
		s.port = strsep(&rest, "/");
		s.export_name = rest;
		if (!is_number(s.port))
			return -EINVAL;
	}
	*ret = s;
	return 0;
}

int boot_parse_dracut(char *text, struct boot_root *ret)
{
	struct boot_root s = {};
	char *where, *rest;

	if (is_uri(text)) {
		*ret = (struct boot_root){ .uri = text };
		return 0;
	}
	rest = text + strlen("nbd:");
	s.host = take_host(&rest);
	where = strsep(&rest, ":");
	if (!s.host || !*s.host || !where || !*where)
		return -EINVAL;
	if (is_number(where))
		s.port = where;
	else
		s.export_name = where;
	s.fstype = strsep(&rest, ":");
	s.flags = strsep(&rest, ":");
	s.options = rest;
	*ret = s;
	return 0;
}

/* nbd-client's spellings that are not names of keys; `takes` a value, also as the next
 * word. */
static const struct spelling {
	const char *name, *key;
	bool takes;
} spellings[] = {
	{ "b", "block-size", true }, { "block-size", "block-size", true },
	{ "t", "timeout", true }, { "timeout", "timeout", true },
	{ "T", "dead-timeout", true }, { "dead-timeout", "dead-timeout", true },
	{ "C", "connections", true }, { "connections", "connections", true },
	{ "N", "export", true }, { "name", "export", true },
	{ "H", "tls-hostname", true }, { "tlshostname", "tls-hostname", true },
	{ "y", "tls-priority", true }, { "priority", "tls-priority", true },
	{ "i", "identifier", true }, { "identifier", "identifier", true },
	{ "R", "read-only", false }, { "readonly", "read-only", false },
	{ "x", "tls", false }, { "enable-tls", "tls", false },
	{ "s", "swap", false }, { "p", "persist", false }, { "g", "no_optgo", false },
	{ "no-optgo", "no_optgo", false }, { "n", "_nofork", false },
	{ "nofork", "_nofork", false }, { "m", "_systemd-mark", false },
	{ "systemd-mark", "_systemd-mark", false },
};

static const struct spelling *find_spelling(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(spellings); i++)
		if (strcmp(spellings[i].name, name) == 0)
			return &spellings[i];
	return NULL;
}

bool boot_next_option(char **list, const char **ret_name, const char **ret_value)
{
	const struct spelling *s;
	char *name, *value;

	do
		name = strsep(list, ",");
	while (name && !*name);
	if (!name)
		return false;
	value = name;
	strsep(&value, "=");
	name += strspn(name, "-");
	s = find_spelling(name);
	if (s && s->takes && !value)
		value = strsep(list, ",");
	*ret_name = s ? s->key : name;
	*ret_value = value ? value : s && strcmp(s->key, "tls") == 0 ? "require" : NULL;
	return true;
}
