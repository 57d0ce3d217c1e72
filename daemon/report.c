#include "daemon/report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/device.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "daemon/store.h"
#include "lib/util/escape.h"
#include "netlink/nbdk.h"

static struct report *add(struct manager *m)
{
	struct report *r;

	if (!m->reports)
		m->reports = calloc(1, sizeof(*m->reports));
	if (!m->reports || m->reports->n == REPORTS_MAX) {
		m->reports_left_out = true;
		return NULL;
	}
	r = &m->reports->list[m->reports->n++];
	*r = (struct report){ .index = -1 };
	return r;
}

static void keep(struct manager *m, const char *text, int index, const char *backend)
{
	struct report *r = add(m);

	log_warning("%s", text);
	if (!r)
		return;
	r->index = index;
	snprintf(r->backend, sizeof(r->backend), "%s", backend);
	snprintf(r->text, sizeof(r->text), "%s", text);
}

void report_file(struct manager *m, const char *name, const char *why)
{
	char text[REPORT_MAX], escaped[128];

	snprintf(text, sizeof(text), "state file %s/" STORE_DIR "/%s is left alone: %s",
		 m->options.runtime_dir, escape_text(escaped, sizeof(escaped), name,
						     strlen(name)), why);
	keep(m, text, -1, "");
}

static void describe(char ret[static REPORT_MAX], unsigned index, const char *backend)
{
	char escaped[300];

	snprintf(ret, REPORT_MAX, "/dev/nbd%u is attached (identifier '%s'), but no state "
		 "file tells how: it is left alone, and nobody reconnects it; end its use, and "
		 "disconnect it with 'nbd-client -d /dev/nbd%u'", index,
		 escape_text(escaped, sizeof(escaped), backend, strlen(backend)), index);
}

void report_device(struct manager *m, unsigned index, const char *backend)
{
	char text[REPORT_MAX];

	describe(text, index, backend);
	keep(m, text, (int)index, backend);
}

/* `nbdd:NAME:RANDOM` */
static bool has_name(const char *backend, const char *name)
{
	const char *rest = backend + sizeof(DEVICE_IDENTIFIER_PREFIX) - 1;
	size_t len = strlen(name);

	return strncmp(backend, DEVICE_IDENTIFIER_PREFIX, (size_t)(rest - backend)) == 0 &&
	       strncmp(rest, name, len) == 0 && rest[len] == ':' &&
	       !strchr(rest + len + 1, ':');
}

void report_refresh(struct manager *m)
{
	struct reports *all = m->reports;
	struct nbdk_info info;
	size_t n = 0;

	for (size_t i = 0; all && i < all->n; i++) {
		const struct report *r = &all->list[i];

		if (r->index >= 0 && (nbdk_sysfs_connection((unsigned)r->index, &info) < 0 ||
				      !info.connected || strcmp(info.backend, r->backend) != 0))
			continue;
		if (n != i)
			all->list[n] = *r;
		n++;
	}
	if (all)
		all->n = n;
}

static const struct report *of_name(struct manager *m, const char *name)
{
	report_refresh(m);
	for (size_t i = 0; m->reports && i < m->reports->n; i++)
		if (m->reports->list[i].index >= 0 &&
		    has_name(m->reports->list[i].backend, name))
			return &m->reports->list[i];
	return NULL;
}

struct search {
	const struct device *d;
	int index;			/* -1: not found */
	struct nbdk_info info;
};

static bool is_supervised(const struct manager *m, unsigned index, const char *backend)
{
	for (size_t i = 0; i < m->n_devices; i++)
		if (m->devices[i]->state != STATE_CONNECTING &&
		    m->devices[i]->index == (int)index &&
		    strcmp(m->devices[i]->identifier, backend) == 0)
			return true;
	return false;
}

static int look(unsigned index, void *userdata)
{
	struct search *s = userdata;
	const char *own = s->d->keys.identifier;

	if (nbdk_sysfs_connection(index, &s->info) < 0 || !s->info.connected ||
	    is_supervised(s->d->manager, index, s->info.backend))
		return 0;
	if (!has_name(s->info.backend, s->d->name) &&
	    (!own || strcmp(s->info.backend, own) != 0))
		return 0;
	s->index = (int)index;
	return 1;
}

/* The list has neither more than its room nor what does not carry an identifier of ours. */
bool report_left_over(const struct device *d, char ret[static REPORT_MAX])
{
	const struct report *r = of_name(d->manager, d->name);
	struct search s = { .d = d, .index = -1 };

	if (r) {
		memcpy(ret, r->text, sizeof(r->text));
		return true;
	}
	if (!d->keys.identifier && !d->manager->reports_left_out)
		return false;
	if (nbdk_foreach(look, &s) < 0 || s.index < 0)
		return false;
	describe(ret, (unsigned)s.index, s.info.backend);
	return true;
}
