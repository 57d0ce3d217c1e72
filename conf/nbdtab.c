/* nbdtab: `DEVICE HOST-or-PATH EXPORT [OPTION[,OPTION...]]`, nbd-client's table. */
#include <errno.h>
#include <string.h>

#include "conf/internal.h"
#include "lib/util/escape.h"

enum { DEVICE, HOST, EXPORT, OPTIONS, N_FIELDS };

/* Split LINE at blanks, up to a word that starts with `#`.  How many fields there are; not
 * more than N_FIELDS are kept. */
static size_t split_fields(char *line, char *fields[N_FIELDS])
{
	size_t n = 0;
	char *word;

	while ((word = strsep(&line, " \t")) && *word != '#') {
		if (!*word)
			continue;
		if (n < N_FIELDS)
			fields[n] = word;
		n++;
	}
	return n;
}

/* A line whose device is known. */
struct entry {
	struct conf_reader *reader;
	struct conf_device *device;
	bool unix_socket;		/* the option `unix` was given */
};

static int entry_problem(struct entry *e, bool fatal, const char *text)
{
	return conf_problem(e->reader, e->reader->line, fatal, e->device->name, "%s", text);
}

static int set_key(struct entry *e, const char *name, const char *value)
{
	char error[CONF_ERROR_MAX];
	int r = device_keys_set(&e->device->keys, name, value, error);

	return r == -EINVAL || r == -ERANGE ? entry_problem(e, true, error) : r;
}

static int set_auto(struct entry *e, const char *value)
{
	char error[CONF_ERROR_MAX];

	if (conf_set_auto(&e->device->automatic, value ? value : "yes", error) < 0)
		return entry_problem(e, true, error);
	return 0;
}

/* nbd-client goes on after an option that it does not know, and takes the last value of one
 * given twice; so do we, with a warning. */
static int set_option(struct entry *e, const char *name, const char *value)
{
	static const char *const extra[] = { "auto", NULL };
	const struct conf_key *key = conf_key_find(name, NULL);
	char error[CONF_ERROR_MAX];
	int r;

	if (strcmp(name, "auto") == 0)
		return set_auto(e, value);
	if (!key && !conf_alias_find(name)) {
		conf_unknown(name, extra, error);
		return entry_problem(e, false, error);
	}
	if (key && e->device->keys.set & conf_key_bit(key)) {
		conf_fail(error, 0, "%s is given twice; the last one counts", key->name);
		r = entry_problem(e, false, error);
		if (r < 0)
			return r;
	}
	e->unix_socket |= strcmp(name, "unix") == 0;
	return set_key(e, name, value);
}

static int read_options(struct entry *e, char *options)
{
	char *name, *value;
	int r = 0;

	while (r == 0 && (name = strsep(&options, ","))) {
		value = name;
		name = strsep(&value, "=");
		r = *name ? set_option(e, name, value) :
		    entry_problem(e, true, "an option is empty; options are joined by single "
				  "commas without blanks");
	}
	return r;
}

/* What the options say together, as nbd-client understands them. */
static int finish_entry(struct entry *e)
{
	struct device_keys *k = &e->device->keys;
	char error[CONF_ERROR_MAX];
	int r = 0;

	/* A name to check, or a file, makes nbd-client use TLS. */
	if ((k->tls_hostname || device_keys_have_files(k)) &&
	    !(k->set & conf_key_bit(conf_key_find("tls", NULL))))
		r = set_key(e, "tls", "require");
	if (r == 0 && e->unix_socket && k->n_addresses && *k->addresses[0] != '/')
		r = entry_problem(e, true, "unix is set but the second field is no absolute "
				  "path; allowed is the path of a socket");
	if (r == 0 && device_keys_check(k, error) < 0 &&
	    !conf_left_out(e->reader->conf, e->device->name))
		r = entry_problem(e, true, error);
	return r;
}

/* Is the device of this line taken by an earlier one?  1, 0, or an error. */
static int check_rival(struct conf_reader *r, const char *name, unsigned index)
{
	const struct conf_device *rival = conf_find_rival(r->conf, name, (int)index);
	int e;

	if (!rival)
		return 0;
	if (strcmp(rival->file, r->file) == 0)
		e = conf_problem(r, r->line, false, NULL, "%s is already set up on line %u; "
				 "the first line counts", name, rival->line);
	else
		e = conf_problem(r, r->line, false, NULL, "%s is already set up in %s, line "
				 "%u, which counts", name, rival->file, rival->line);
	return e < 0 ? e : 1;
}

static int read_entry(struct conf_reader *r, char *fields[N_FIELDS], size_t n)
{
	struct entry e = { .reader = r };
	char name[CONF_NAME_MAX];
	unsigned index;
	int x;

	if (conf_parse_device(fields[DEVICE], &index) < 0) {
		char quoted[CONF_QUOTED_MAX];

		return conf_problem(r, r->line, true, NULL, "'%s' is not a device; allowed is "
				    "nbdN or /dev/nbdN", conf_quote(quoted, fields[DEVICE]));
	}
	snprintf(name, sizeof(name), "nbd%u", index);
	x = check_rival(r, name, index);
	if (x != 0)
		return x < 0 ? x : 0;
	x = conf_add_device(r, name, (int)index, &e.device);
	if (x < 0)
		return x;
	if (n <= EXPORT || n > N_FIELDS)
		return conf_problem(r, r->line, true, name, "%s; a line is DEVICE HOST EXPORT "
				    "[OPTION[,OPTION...]]", n > N_FIELDS ?
				    "there are more than four fields" :
				    "there are less than three fields");
	x = set_key(&e, "addresses", fields[HOST]);
	if (x == 0)
		x = set_key(&e, "export", fields[EXPORT]);
	if (x == 0 && n > OPTIONS)
		x = read_options(&e, fields[OPTIONS]);
	return x < 0 ? x : finish_entry(&e);
}

int conf_read_nbdtab(struct conf_reader *r)
{
	char *line, *fields[N_FIELDS];
	size_t len, n;
	int e = 0;

	while (e == 0 && conf_next_line(r, &line, &len)) {
		if (memchr(line, '\0', len)) {
			e = conf_problem(r, r->line, true, NULL, "the line holds a NUL byte; "
					 "a text file is expected");
			continue;
		}
		n = split_fields(line, fields);
		if (n)
			e = read_entry(r, fields, n);
	}
	return e;
}
