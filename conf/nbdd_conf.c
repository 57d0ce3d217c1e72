/* nbdd.conf: a section [NAME] a device, and [defaults] for the devices after it.
 *
 * libinih splits the lines.  It is given one line at a time, because of a whole file it tells
 * the first bad line only, joins an indented line to the one before, and says nothing of a
 * section without keys. */
#include <errno.h>
#include <ini.h>
#include <stdarg.h>
#include <string.h>

#include "conf/internal.h"
#include "lib/util/cleanup.h"

#define DEFAULTS "defaults"

/* Where libinih is built with limits that a program may change (Debian's is), lines may be
 * as long as a value; elsewhere they end at its own limit, which the problem then names. */
#pragma weak ini_max_line
extern int ini_max_line;
#define LINE_MAX_WANTED (CONF_VALUE_MAX + 256)

enum place { BEFORE_SECTIONS, IN_DEFAULTS, IN_DEVICE, IN_BAD_SECTION };

struct ini {
	struct conf_reader *reader;
	enum place place;
	struct conf_device *device;	/* IN_DEVICE: the last of reader->conf->devices */
	struct device_keys defaults;
	bool defaults_seen;
	unsigned defaults_broken;	/* first bad line in [defaults], or 0 */
	unsigned key_lines[64];		/* where conf_keys[i] was set in this section */
	unsigned device_line, auto_line;

	/* The line that libinih is splitting. */
	const char *line;
	size_t len;
	size_t too_long;		/* it is longer than this many bytes */
	bool given, probed;
	int result;			/* of what its handler called */
};

_Static_assert(ARRAY_SIZE(((struct ini *)0)->key_lines) == 8 * sizeof(uint64_t),
	       "a line a bit of device_keys.set");

/* Record a problem at LINE, which breaks the section that is being read. */
static int bad(struct ini *ini, unsigned line, const char *text)
{
	const char *device = ini->place == IN_DEVICE ? ini->device->name : NULL;

	if (ini->place == IN_DEFAULTS && !ini->defaults_broken)
		ini->defaults_broken = line;
	return conf_problem(ini->reader, line, true, device, "%s", text);
}

_printf_(2, 3) static int bad_here(struct ini *ini, const char *format, ...)
{
	char text[CONF_ERROR_MAX];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	return bad(ini, ini->reader->line, text);
}

/* Is *LINE, of a name that may stand once in a section, set already?  1, 0 or an error. */
static int check_twice(struct ini *ini, const char *name, unsigned *line)
{
	int r;

	if (!*line) {
		*line = ini->reader->line;
		return 0;
	}
	r = bad_here(ini, "%s is set twice; it is already on line %u", name, *line);
	return r < 0 ? r : 1;
}

static int set_device(struct ini *ini, const char *value)
{
	char quoted[CONF_QUOTED_MAX];
	unsigned index;
	int r = check_twice(ini, "device", &ini->device_line);

	if (r != 0)
		return r < 0 ? r : 0;
	if (conf_parse_device(value, &index) < 0)
		return bad_here(ini, "device: '%s' is not a device; allowed is /dev/nbdN",
				conf_quote(quoted, value));
	if (ini->device->index >= 0 && ini->device->index != (int)index)
		return bad_here(ini, "device: '%s' contradicts the section's name, [%s]; give "
				"the section another name", conf_quote(quoted, value),
				ini->device->name);
	ini->device->index = (int)index;
	return 0;
}

static int set_auto(struct ini *ini, const char *value)
{
	char error[CONF_ERROR_MAX];
	int r = check_twice(ini, "auto", &ini->auto_line);

	if (r != 0)
		return r < 0 ? r : 0;
	if (conf_set_auto(&ini->device->automatic, value, error) < 0)
		return bad_here(ini, "%s", error);
	return 0;
}

/* The two names that are not keys of a device but of its section. */
static const struct section_key {
	const char *name;
	int (*set)(struct ini *ini, const char *value);
} section_keys[] = {
	{ "device", set_device },
	{ "auto", set_auto },
};

static const struct section_key *find_section_key(const char *name)
{
	for (size_t i = 0; i < ARRAY_SIZE(section_keys); i++)
		if (strcmp(section_keys[i].name, name) == 0)
			return &section_keys[i];
	return NULL;
}

static int set_key(struct ini *ini, const char *name, const char *value)
{
	static const char *const extra[] = { "device", "auto", NULL };
	bool defaults = ini->place == IN_DEFAULTS;
	const struct conf_key *key = conf_key_find(name, NULL);
	char error[CONF_ERROR_MAX];
	int r;

	if (!key) {
		conf_unknown(name, extra, error);
		return bad_here(ini, "%s", error);
	}
	if (key->type == CONF_NOTHING)
		return 0;
	if (defaults && key->rules & CONF_OF_ONE_DEVICE)
		return bad_here(ini, "%s belongs to one device; it is not allowed in ["
				DEFAULTS "]", key->name);
	r = check_twice(ini, key->name, &ini->key_lines[key - conf_keys]);
	if (r != 0)
		return r < 0 ? r : 0;
	r = device_keys_set(defaults ? &ini->defaults : &ini->device->keys, name, value, error);
	return r == -EINVAL || r == -ERANGE ? bad_here(ini, "%s", error) : r;
}

static int read_key(struct ini *ini, const char *name, const char *value)
{
	const struct section_key *key = find_section_key(name);

	switch (ini->place) {
	case BEFORE_SECTIONS:
		return bad_here(ini, "a key stands before the first section; [NAME] of a device "
				"or [" DEFAULTS "] comes first");
	case IN_BAD_SECTION:
		return 0;
	case IN_DEFAULTS:
		if (key)
			return bad_here(ini, "%s belongs to one device; it is not allowed in ["
					DEFAULTS "]", name);
		break;
	case IN_DEVICE:
		if (key)
			return key->set(ini, value);
		break;
	}
	return set_key(ini, name, value);
}

/* A section's own uri takes the place of the servers in [defaults]. */
static void settle_servers(struct ini *ini, uint64_t own)
{
	static const char *const of_servers[] = { "addresses", "port" };

	if (!ini->device->keys.uri)
		return;
	for (size_t i = 0; i < ARRAY_SIZE(of_servers); i++) {
		const struct conf_key *key = conf_key_find(of_servers[i], NULL);

		if (!(own & conf_key_bit(key)))
			device_keys_unset(&ini->device->keys, key);
	}
}

static int check_device(struct ini *ini)
{
	struct conf *c = ini->reader->conf;
	struct conf_device *d = ini->device;
	const struct conf_device *rival;
	char error[CONF_ERROR_MAX];

	if (conf_left_out(c, d->name))
		return 0;
	if (device_keys_check(&d->keys, error) < 0)
		return bad(ini, d->line, error);
	rival = conf_find_rival(c, d->name, d->index);
	if (rival == d)
		return 0;
	conf_fail(error, 0, "device: /dev/nbd%d is already that of [%s] on line %u; each "
		  "section needs its own", d->index, rival->name, rival->line);
	return bad(ini, ini->device_line ? ini->device_line : d->line, error);
}

/* Everything of the section has been read. */
static int end_section(struct ini *ini)
{
	uint64_t own;
	int r = 0;

	if (ini->place == IN_DEVICE) {
		own = ini->device->keys.set;
		ini->device->keys.set |= ini->defaults.set;
		settle_servers(ini, own);
		r = check_device(ini);
	}
	ini->place = IN_BAD_SECTION;
	ini->device_line = ini->auto_line = 0;
	memset(ini->key_lines, 0, sizeof(ini->key_lines));
	return r;
}

static int begin_defaults(struct ini *ini)
{
	if (ini->defaults_seen)
		return bad_here(ini, "[" DEFAULTS "] is there twice; allowed is once");
	ini->defaults_seen = true;
	ini->place = IN_DEFAULTS;
	return 0;
}

static int begin_device(struct ini *ini, const char *name, int index)
{
	struct conf_reader *r = ini->reader;
	struct conf_device *d;
	int e;

	e = conf_add_device(r, name, index, &d);
	if (e < 0)
		return e;
	device_keys_deinit(&d->keys);
	e = device_keys_copy(&d->keys, &ini->defaults);
	if (e < 0) {
		device_keys_init(&d->keys);
		return e;
	}
	d->keys.set = 0;	/* until its end, of the section alone */
	d->automatic = true;
	ini->device = d;
	ini->place = IN_DEVICE;
	if (ini->defaults_broken)
		return bad_here(ini, "[%s] is left out because [" DEFAULTS "] is broken on "
				"line %u", name, ini->defaults_broken);
	return 0;
}

static int read_section(struct ini *ini, const char *text)
{
	char quoted[CONF_QUOTED_MAX], name[CONF_NAME_MAX + 1];
	const struct conf_device *same;
	int index = -1;
	unsigned n;

	if (strcmp(text, DEFAULTS) == 0)
		return begin_defaults(ini);
	if (strcasecmp(text, DEFAULTS) == 0 || strcasecmp(text, "default") == 0)
		return bad_here(ini, "unknown section [%s]; did you mean [" DEFAULTS "]?", text);
	if (conf_parse_device(text, &n) == 0)
		index = (int)n;
	else if (conf_check_name(text) < 0)
		return bad_here(ini, "'%s' is not a name; allowed are up to %u letters, digits "
				"and ._@:-, not starting with . or -", conf_quote(quoted, text),
				CONF_NAME_MAX);
	snprintf(name, sizeof(name), "%s", index < 0 ? text : text + (*text == '/' ? 5 : 0));
	for (size_t i = 0; i < ini->reader->conf->n_devices; i++) {
		same = &ini->reader->conf->devices[i];
		if (strcmp(same->name, name) == 0)
			return bad_here(ini, "[%s] is there twice; it is already on line %u",
					name, same->line);
	}
	return begin_device(ini, name, index);
}

/* libinih's handler; NAME is empty after a section's head, see give_line. */
static int handle(void *user, const char *section, const char *name, const char *value)
{
	struct ini *ini = user;
	size_t len = strlen(section);
	bool head = *ini->line == '[';
	bool whole = head && strncmp(ini->line + 1, section, len) == 0 &&
		     ini->line[1 + len] == ']';

	if (whole) {
		ini->result = read_section(ini, section);
	} else if (head && len) {
		ini->result = bad_here(ini, "the name of the section is too long; at most %zu "
				       "bytes are allowed", len);
	} else if (head) {
		return 1;	/* split_line tells that it is no head */
	} else if (!*name) {
		ini->result = bad_here(ini, "there is nothing before the =; a line is "
				       "KEY = VALUE");
	} else {
		ini->result = read_key(ini, name, value);
	}
	return 1;
}

/* libinih's reader.  After the head of a section comes a line with an empty name, so that
 * the handler is called for it. */
static char *give_line(char *buf, int size, void *user)
{
	struct ini *ini = user;

	if (ini->given && (*ini->line != '[' || ini->probed))
		return NULL;
	if (ini->given) {
		ini->probed = true;
		return memcpy(buf, "=", 2);
	}
	ini->given = true;
	if (ini->len + 3 > (size_t)size) {
		ini->too_long = (size_t)size - 3;
		return NULL;
	}
	return memcpy(buf, ini->line, ini->len + 1);
}

static const char no_bracket[] = "the ] after the name of the section is missing";

/* A section's head that libinih would take, but with more on the line than it reads. */
static int check_head(struct ini *ini)
{
	const char *rest = strchr(ini->line, ']');

	if (!rest)
		return bad_here(ini, "%s", no_bracket);
	rest++;
	rest += strspn(rest, " \t");
	if (*rest && *rest != ';' && *rest != '#')
		return bad_here(ini, "there is text after the ]; a section is [NAME]");
	return 0;
}

static int split_line(struct ini *ini)
{
	ini->given = ini->probed = false;
	ini->too_long = 0;
	ini->result = 0;
	if (ini_parse_stream(give_line, ini, handle, ini) != 0)
		return bad_here(ini, "%s", *ini->line == '[' ? no_bracket :
				"there is no = on the line; a line is KEY = VALUE");
	if (ini->too_long)
		return bad_here(ini, "the line is %zu bytes long; allowed are %zu", ini->len,
				ini->too_long);
	return ini->result;
}

static int read_line(struct ini *ini, char *line, size_t len)
{
	size_t blanks = strspn(line, " \t");
	size_t problems;
	int r = 0;

	ini->line = line + blanks;
	ini->len = len - blanks;
	/* Whatever is wrong with this line, it is no longer the section before. */
	if (*ini->line == '[')
		r = end_section(ini);
	if (r < 0)
		return r;
	if (memchr(line, '\0', len))
		return bad_here(ini, "the line holds a NUL byte; a text file is expected");
	if (!*ini->line || strchr("#;", *ini->line))
		return 0;
	problems = ini->reader->conf->n_problems;
	if (*ini->line == '[')
		r = check_head(ini);
	if (r == 0 && ini->reader->conf->n_problems == problems)
		r = split_line(ini);
	return r;
}

int conf_read_nbdd_conf(struct conf_reader *r)
{
	struct ini ini = { .reader = r, .place = BEFORE_SECTIONS };
	char *line;
	size_t len;
	int e = 0;

	if (&ini_max_line && ini_max_line < LINE_MAX_WANTED)
		ini_max_line = LINE_MAX_WANTED;
	device_keys_init(&ini.defaults);
	while (e == 0 && conf_next_line(r, &line, &len))
		e = read_line(&ini, line, len);
	if (e == 0 || e == -E2BIG) {
		int end = end_section(&ini);

		e = e < 0 ? e : end;
	}
	device_keys_deinit(&ini.defaults);
	return e;
}
