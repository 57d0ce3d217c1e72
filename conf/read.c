/* Both files together: the devices, and which of them stay. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "conf/internal.h"

int conf_add_device(struct conf_reader *r, const char *name, int index,
		    struct conf_device **ret)
{
	struct conf *c = r->conf;
	struct conf_device d = { .index = index, .line = r->line }, *grown;

	if (c->n_devices == CONF_DEVICES_MAX) {
		int e = conf_problem(r, r->line, true, name, "more than %u devices; the rest "
				     "of this file is not read", CONF_DEVICES_MAX);
		return e < 0 ? e : -E2BIG;
	}
	grown = reallocarray(c->devices, c->n_devices + 1, sizeof(*grown));
	if (!grown)
		return -ENOMEM;
	c->devices = grown;
	d.name = strdup(name);
	d.file = strdup(r->file);
	if (!d.name || !d.file) {
		free(d.name);
		free(d.file);
		return -ENOMEM;
	}
	device_keys_init(&d.keys);
	*ret = &grown[c->n_devices++];
	**ret = d;
	return 0;
}

struct conf_device *conf_find_rival(const struct conf *c, const char *name, int index)
{
	for (size_t i = 0; i < c->n_devices; i++)
		if (strcmp(c->devices[i].name, name) == 0 ||
		    (index >= 0 && c->devices[i].index == index))
			return &c->devices[i];
	return NULL;
}

const struct conf_device *conf_find_named(const struct conf *c, const char *name)
{
	return conf_find_rival(c, name, -1);
}

const struct conf_device *conf_find(const struct conf *c, const char *name)
{
	const struct conf_device *d = conf_find_named(c, name);
	unsigned index;

	if (d || conf_parse_device(name, &index) < 0)
		return d;
	for (size_t i = 0; i < c->n_devices; i++)
		if (c->devices[i].index == (int)index)
			return &c->devices[i];
	return NULL;
}

static void free_device(struct conf_device *d)
{
	free(d->name);
	free(d->file);
	device_keys_deinit(&d->keys);
}

void conf_drop_left_out(struct conf *c)
{
	size_t kept = 0;

	for (size_t i = 0; i < c->n_devices; i++) {
		if (conf_left_out(c, c->devices[i].name))
			free_device(&c->devices[i]);
		else
			c->devices[kept++] = c->devices[i];
	}
	c->n_devices = kept;
}

void conf_free(struct conf *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < c->n_devices; i++)
		free_device(&c->devices[i]);
	for (size_t i = 0; i < c->n_problems; i++)
		conf_free_problem(&c->problems[i]);
	free(c->devices);
	free(c->problems);
	free(c);
}

typedef int conf_parser(struct conf_reader *r);

/* 0 or -ENOMEM. */
static int parse_text(struct conf *c, struct conf_text *t, conf_parser *parse)
{
	struct conf_reader r = { .conf = c, .file = t->file, .first_problem = c->n_problems };
	int e = conf_take(&r, t);

	if (e > 0)
		e = parse(&r);
	conf_text_clear(t);
	return e == -ENOMEM ? e : 0;
}

int conf_parse(struct conf_text *nbdd_conf, struct conf_text *nbdtab, struct conf **ret)
{
	struct conf *c = calloc(1, sizeof(*c));
	int r = c ? 0 : -ENOMEM;

	if (r == 0)
		r = parse_text(c, nbdd_conf, conf_read_nbdd_conf);
	if (r == 0)
		r = parse_text(c, nbdtab, conf_read_nbdtab);
	if (r < 0) {
		conf_free(c);
		return r;
	}
	conf_drop_left_out(c);
	*ret = c;
	return 0;
}

int conf_read(const char *nbdd_conf, const char *nbdtab, struct conf **ret)
{
	struct conf_text first = CONF_TEXT_NULL(nbdd_conf), second = CONF_TEXT_NULL(nbdtab);
	int r = conf_text_read(&first);

	if (r == 0)
		r = conf_text_read(&second);
	if (r == 0)
		r = conf_parse(&first, &second, ret);
	conf_text_clear(&first);
	conf_text_clear(&second);
	return r;
}

/* The first character that is neither blank nor in a comment, or NUL. */
static char first_character(const char *p, const char *end)
{
	for (; p < end; p++) {
		if (strchr("#;", *p))
			p = memchr(p, '\n', (size_t)(end - p));
		else if (!strchr(" \t\r\n", *p))
			return *p;
		if (!p)
			break;
	}
	return '\0';
}

/* An nbdtab never has a line that starts with a bracket, an nbdd.conf nothing before one. */
static int read_any(struct conf_reader *r)
{
	return first_character(r->next, r->end) == '[' ? conf_read_nbdd_conf(r) :
							 conf_read_nbdtab(r);
}

static conf_parser *parser_for(const char *file)
{
	const char *slash = strrchr(file, '/'), *name = slash ? slash + 1 : file;
	size_t len = strlen(name);

	if (len >= 6 && strcmp(name + len - 6, "nbdtab") == 0)
		return conf_read_nbdtab;
	if (len >= 5 && strcmp(name + len - 5, ".conf") == 0)
		return conf_read_nbdd_conf;
	return read_any;
}

int conf_read_one(const char *file, struct conf **ret)
{
	struct conf *c = calloc(1, sizeof(*c));
	struct conf_text t = CONF_TEXT_NULL(file);
	int e = c ? conf_text_read(&t) : -ENOMEM;

	if (e == 0 && t.reading == CONF_MISSING)
		e = conf_problem(&(struct conf_reader){ .conf = c, .file = file }, 0, true, NULL,
				 "there is no such file");
	if (e == 0)
		e = parse_text(c, &t, parser_for(file));
	conf_text_clear(&t);
	if (e < 0) {
		conf_free(c);
		return e;
	}
	conf_drop_left_out(c);
	*ret = c;
	return 0;
}
