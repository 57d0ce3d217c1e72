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
	if (!m->reports || m->reports->n == REPORTS_MAX)
		return NULL;
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

void report_device(struct manager *m, unsigned index, const char *backend)
{
	char text[REPORT_MAX], escaped[300];

	snprintf(text, sizeof(text), "/dev/nbd%u is attached (identifier '%s'), but no state "
		 "file tells how: it is left alone, and nobody reconnects it; end its use, and "
		 "disconnect it with 'nbd-client -d /dev/nbd%u'", index,
		 escape_text(escaped, sizeof(escaped), backend, strlen(backend)), index);
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

const struct report *report_of_name(struct manager *m, const char *name)
{
	report_refresh(m);
	for (size_t i = 0; m->reports && i < m->reports->n; i++)
		if (m->reports->list[i].index >= 0 &&
		    has_name(m->reports->list[i].backend, name))
			return &m->reports->list[i];
	return NULL;
}
