/* `nbdd --serve=programs`: runs programs for an nbdd that is not root, and that somebody may
 * have taken over: what it is asked is checked, and run as the configuration says. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "daemon/log.h"
#include "daemon/manager.h"
#include "daemon/program_runner.h"
#include "lib/util/cleanup.h"

void program_accept(struct runner *r)
{
	_cleanup_close_ int fd = service_accept(&r->service);

	if (fd < 0)
		return;
	if (r->n_clients == PROGRAM_CLIENTS_MAX)
		log_warning("on-event: more than %u clients: the latest is turned away",
			    PROGRAM_CLIENTS_MAX);
	else
		r->clients[r->n_clients++] = STEAL_FD(fd);
}

/* ---- an order ---------------------------------------------------------------------- */

static bool ends(const char *text, size_t size)
{
	return memchr(text, '\0', size) != NULL;
}

bool program_check(struct news *n)
{
	const char *wrong = NULL;
	unsigned index;

	if ((unsigned)n->kind >= N_NEWS)
		wrong = "event";
	else if (!ends(n->name, sizeof(n->name)) || conf_check_name(n->name) < 0)
		wrong = "name of a device";
	else if (!ends(n->device, sizeof(n->device)) ||
		 (*n->device && conf_parse_device(n->device, &index) < 0))
		wrong = "device";
	else if (!ends(n->message, sizeof(n->message)))
		wrong = "message";
	if (wrong) {
		log_error("on-event: an order whose %s is none: nothing is run", wrong);
		return false;
	}
	for (char *c = n->message; *c; c++)
		if ((unsigned char)*c < ' ' || *c == '\x7f')
			*c = '?';
	return true;
}

void program_look_up(const struct manager_options *files, struct program_order *o)
{
	const struct conf_device *d;
	struct conf *c;

	if (conf_read(files->config, files->nbdtab, &c) < 0)
		_exit(1);
	d = conf_find_named(c, o->news.name);	/* nbdd does not say a number for it */
	if (!d || !d->keys.on_event) {
		log_error("%s: on-event: '%s': nothing is run: neither %s nor %s has on-event for "
			  "this device", o->news.name, news_name(o->news.kind), files->config,
			  files->nbdtab);
		_exit(0);
	}
	snprintf(o->path, sizeof(o->path), "%s", d->keys.on_event);
	snprintf(o->user, sizeof(o->user), "%s", d->keys.on_event_user ?: "");
}

/* ---- the process ------------------------------------------------------------------- */

int program_serve(const struct manager_options *o)
{
	_cleanup_free_ struct runner *r = calloc(1, sizeof(*r));
	int e = r ? service_open(&r->service) : -ENOMEM;

	if (e < 0)
		return e;
	r->files = o;
	(void)sd_notify(true, "READY=1");
	program_run(r);
	return 0;
}
