/* The kernel's command line: what the initramfs is to attach.
 *
 * `nbdroot=` and `nbddev=` are those of Debian's initramfs script for nbd-client, `root=nbd:`
 * and `netroot=nbd:` those of dracut, `nbdd.attach=` is ours.  What DHCP told of the root
 * comes as `nbdd.root-server=` and `nbdd.root-path=`, which the scripts put in front. */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/boot_words.h"
#include "conf/internal.h"

#define ROOT_NAME "root"

/* The parameters of which the last one counts. */
enum single { NBDROOT, NBDDEV, ROOT, NETROOT, ROOT_SERVER, ROOT_PATH, N_SINGLE };

static const char *const single_names[N_SINGLE] = {
	[NBDROOT] = "nbdroot", [NBDDEV] = "nbddev", [ROOT] = "root", [NETROOT] = "netroot",
	[ROOT_SERVER] = "nbdd.root-server", [ROOT_PATH] = "nbdd.root-path",
};

struct command_line {
	struct conf_reader *reader;
	char *values[N_SINGLE];
	unsigned n_attach;
	struct conf_boot *boot;
};

/* WHAT=TEXT cannot be used, because WHY; TEXT is quoted. */
static int problem_quoted(const struct command_line *l, const char *what, const char *text,
			  const char *why)
{
	return conf_problem(l->reader, l->reader->line, true, NULL, "%s=%s: %s", what, text,
			    why);
}

static int problem(const struct command_line *l, const char *device, const char *what,
		   const char *text, const char *why)
{
	char quoted[CONF_QUOTED_MAX];

	return conf_problem(l->reader, l->reader->line, true, device, "%s=%s: %s", what,
			    conf_quote(quoted, text), why);
}

static int set_key(const struct command_line *l, struct conf_device *d, const char *key,
		   const char *value)
{
	char error[CONF_ERROR_MAX];
	int r = device_keys_set(&d->keys, key, value, error);

	if (r == -EINVAL || r == -ERANGE)
		return conf_problem(l->reader, l->reader->line, true, d->name, "%s", error);
	return r;
}

static int add_device(const struct command_line *l, const char *name, int index,
		      struct conf_device **ret)
{
	const struct conf_device *rival = conf_find_rival(l->boot->conf, name, index);
	int r;

	if (rival) {
		r = conf_problem(l->reader, l->reader->line, true, NULL, "the name %s or its "
				 "device is asked for twice; the first one counts", name);
		return r < 0 ? r : -EEXIST;
	}
	r = conf_add_device(l->reader, name, index, ret);
	if (r == 0)
		(*ret)->automatic = true;
	return r;
}

static int check_device(const struct command_line *l, struct conf_device *d)
{
	char error[CONF_ERROR_MAX];

	if (conf_left_out(l->boot->conf, d->name) || device_keys_check(&d->keys, error) == 0)
		return 0;
	return conf_problem(l->reader, l->reader->line, true, d->name, "%s", error);
}

/* ---- where the root is ------------------------------------------------------------- */

/* /dev/nbd0 and its partitions: the disk, or -1. */
static int disk_of(const char *text)
{
	char disk[32];
	const char *digits;
	unsigned index;
	size_t n;

	if (!text)
		return -1;
	n = strcspn(text, "0123456789");
	digits = text + n;
	n += strspn(digits, "0123456789");
	if (n >= sizeof(disk) || (text[n] && text[n] != 'p'))
		return -1;
	memcpy(disk, text, n);
	disk[n] = '\0';
	return conf_parse_device(disk, &index) == 0 ? (int)index : -1;
}

static int set_server(const struct command_line *l, struct conf_device *d,
		      const struct boot_root *s)
{
	int r;

	if (s->uri)
		return set_key(l, d, "uri", s->uri);
	r = set_key(l, d, "addresses", s->host);
	if (r == 0 && s->port)
		r = set_key(l, d, "port", s->port);
	if (r == 0 && s->export_name)
		r = set_key(l, d, "export", s->export_name);
	return r;
}

static int add_root(const struct command_line *l, const struct boot_root *s, int index,
		    struct conf_device **ret)
{
	int r = add_device(l, ROOT_NAME, index, ret);

	return r < 0 ? r : set_server(l, *ret, s);
}

/* nbdroot=; `dhcp` or nothing: what DHCP told. */
static int read_nbdroot(const struct command_line *l)
{
	char *text = l->values[NBDROOT], quoted[CONF_QUOTED_MAX];
	struct conf_device *d;
	struct boot_root s;
	int index, r;

	if (!*text || strcmp(text, "dhcp") == 0)
		text = l->values[ROOT_PATH];
	if (!text || !*text)
		return problem(l, NULL, "nbdroot", l->values[NBDROOT],
			       "no server is named, and DHCP gave no root path");
	conf_quote(quoted, text);
	r = boot_parse_nbdroot(text, &s);
	if (r < 0)
		return problem_quoted(l, "nbdroot", quoted, "expected SERVER,EXPORT[,nbdN], "
			       "SERVER,PORT, SERVER:PORT[/EXPORT], SERVER:/EXPORT or a URI; an "
			       "IPv6 address in brackets");
	if (!s.uri && (!*s.host || strcmp(s.host, "dhcp") == 0))
		s.host = l->values[ROOT_SERVER];
	if (!s.uri && (!s.host || !*s.host))
		return problem_quoted(l, "nbdroot", quoted,
			       "no server is named, and DHCP gave none");
	index = disk_of(l->values[ROOT]);
	if (index < 0)
		index = disk_of(l->values[NBDDEV]);
	if (index < 0)
		index = disk_of(s.device);
	r = add_root(l, &s, MAX(index, 0), &d);
	return r < 0 ? r : check_device(l, d);
}

/* ---- dracut ------------------------------------------------------------------------ */

static int read_dracut_option(const struct command_line *l, struct conf_device *d,
			      const char *name, const char *value)
{
	static const char *const none[] = { NULL };
	const struct conf_key *key = conf_key_find(name, NULL);
	char error[CONF_ERROR_MAX];

	if (key || conf_alias_find(name))
		return set_key(l, d, name, value);
	conf_unknown(name, none, error);
	return conf_problem(l->reader, l->reader->line, false, d->name, "%s", error);
}

/* nbd-client's options as words: `-b,4096`, `-timeout=30`, `swap`; and keys of ours. */
static int read_dracut_options(const struct command_line *l, struct conf_device *d,
			       char *options)
{
	const char *name, *value;
	int r = 0;

	while (r == 0 && boot_next_option(&options, &name, &value))
		r = read_dracut_option(l, d, name, value);
	return r;
}

static int keep(char **member, const char *text)
{
	if (!text || !*text)
		return 0;
	*member = strdup(text);
	return *member ? 0 : -ENOMEM;
}

/* root=nbd:SERVER:PORT-or-EXPORT[:FSTYPE[:FLAGS[:OPTIONS]]] */
static int read_dracut(const struct command_line *l, char *text)
{
	int index = disk_of(l->values[ROOT]), r;
	char quoted[CONF_QUOTED_MAX];
	struct conf_device *d;
	struct boot_root s;

	conf_quote(quoted, text);
	if (boot_parse_dracut(text, &s) < 0)
		return problem_quoted(l, "root", quoted, "expected nbd:SERVER:PORT-or-EXPORT"
			       "[:FSTYPE[:FLAGS[:OPTIONS]]] or a URI; an IPv6 address in "
			       "brackets");
	r = add_root(l, &s, MAX(index, 0), &d);
	if (r == 0 && s.options)
		r = read_dracut_options(l, d, s.options);
	if (r == 0)
		r = check_device(l, d);
	if (r == 0)
		r = keep(&l->boot->fstype, s.fstype);
	if (r == 0)
		r = keep(&l->boot->root_flags, s.flags);
	if (r == 0 && asprintf(&l->boot->root, "/dev/nbd%d", d->index) < 0)
		l->boot->root = NULL;
	return r == 0 && !l->boot->root ? -ENOMEM : r;
}

static bool is_nbd(const char *value)
{
	return value && (strncmp(value, "nbd:", 4) == 0 || strncmp(value, "nbd://", 6) == 0 ||
			 strncmp(value, "nbds://", 7) == 0);
}

/* ---- ours -------------------------------------------------------------------------- */

/* KEY=VALUE, `device=/dev/nbdN`, or `nofail`. */
static int read_pair(const struct command_line *l, struct conf_device *d, char *pair)
{
	char *value = pair;
	unsigned index;

	strsep(&value, "=");
	if (strcmp(pair, "nofail") == 0 && !value) {
		d->nofail = true;
		return 0;
	}
	if (strcmp(pair, "device") != 0)
		return set_key(l, d, pair, value);
	if (!value || conf_parse_device(value, &index) < 0)
		return problem(l, d->name, "device", value ? value : "", "allowed is /dev/nbdN");
	if (d->index >= 0 && d->index != (int)index)
		return problem(l, d->name, "device", value, "its name is that of another device");
	d->index = (int)index;
	return 0;
}

/* nbdd.attach=[NAME=]URI[,KEY=VALUE...]; `%2C` is a comma in a URI. */
static int read_attach(struct command_line *l, char *text)
{
	char *scheme = strstr(text, "://"), *equals = strchr(text, '=');
	char *uri = strsep(&text, ","), *pair, *name = NULL;
	struct conf_device *d;
	char made_up[16];
	unsigned index;
	int r;

	if (!scheme)
		return problem(l, NULL, "nbdd.attach", uri,
			       "expected [NAME=]URI[,KEY=VALUE...]");
	if (equals && equals < scheme) {
		name = uri;
		uri = equals + 1;
		*equals = '\0';
	}
	snprintf(made_up, sizeof(made_up), "boot%u", l->n_attach++);
	if (name && conf_check_name(name) < 0)
		return problem(l, NULL, "nbdd.attach", name,
			       "not a name for a device; allowed are letters, digits and ._@:-");
	r = add_device(l, name ? name : made_up,
		       name && conf_parse_device(name, &index) == 0 ? (int)index : -1, &d);
	if (r == 0)
		r = set_key(l, d, "uri", uri);
	while (r == 0 && (pair = strsep(&text, ",")))
		r = read_pair(l, d, pair);
	return r < 0 ? r : check_device(l, d);
}

/* ---- the line ---------------------------------------------------------------------- */

static int read_word(struct command_line *l, char *word)
{
	char *value = word;

	strsep(&value, "=");
	if (value && strcmp(word, "nbdd.attach") == 0)
		return read_attach(l, value);
	for (size_t i = 0; value && i < N_SINGLE; i++)
		if (strcmp(word, single_names[i]) == 0)
			l->values[i] = value;
	return 0;
}

/* dracut: root= counts before netroot=.  A parameter that was refused costs its own device
 * only. */
static int read_roots(struct command_line *l)
{
	int r = 0;

	if (is_nbd(l->values[ROOT]))
		r = read_dracut(l, l->values[ROOT]);
	else if (is_nbd(l->values[NETROOT]))
		r = read_dracut(l, l->values[NETROOT]);
	else if (l->values[NBDROOT])
		r = read_nbdroot(l);
	return r == -EEXIST ? 0 : r;
}

static int read_line(struct conf_reader *reader, struct conf_boot *boot)
{
	struct command_line l = { .reader = reader, .boot = boot };
	char *word, *rest = reader->next;
	int r = 0;

	*reader->end = '\0';
	reader->line = 1;
	while (r == 0 && (word = boot_next_word(&rest))) {
		r = read_word(&l, word);
		r = r == -EEXIST ? 0 : r;
	}
	return r < 0 ? r : read_roots(&l);
}

int conf_read_boot(const char *file, struct conf_boot *ret)
{
	struct conf_boot boot = { .conf = calloc(1, sizeof(*boot.conf)) };
	struct conf_reader r = { .conf = boot.conf, .file = file };
	struct conf_text text = CONF_TEXT_NULL(file);
	int e = boot.conf ? conf_text_read(&text) : -ENOMEM;

	if (e == 0)
		e = conf_take(&r, &text);
	if (e > 0)
		e = read_line(&r, &boot);
	conf_text_clear(&text);
	if (e < 0 && e != -E2BIG) {
		conf_boot_deinit(&boot);
		return e;
	}
	conf_drop_left_out(boot.conf);
	*ret = boot;
	return 0;
}

void conf_boot_deinit(struct conf_boot *b)
{
	conf_free(b->conf);
	free(b->root);
	free(b->fstype);
	free(b->root_flags);
}
