/* The configured devices, at the start. */
#include <errno.h>
#include <string.h>

#include "daemon/event.h"
#include "daemon/fetch.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "daemon/programs.h"
#include "lib/util/cleanup.h"
#include "lib/util/clock.h"

#define AGAIN_USEC USEC_PER_SEC

/* One that was taken over is the one that the files mean, and stays as it is. */
static bool there_already(struct manager *m, const struct conf_device *c)
{
	struct device *d = manager_find_named(m, c->name);

	if (!d)
		return false;
	d->automatic = true;
	if (!device_keys_equal(&d->keys, &c->keys))
		device_log(d, LOG_WARNING, "%s:%u: its keys have changed; until it is detached "
			   "it keeps those that it was attached with", c->file, c->line);
	return true;
}

void manager_load_device(struct manager *m, const struct conf_device *c)
{
	struct device *d;
	int index, r;

	if (there_already(m, c))
		return;
	index = c->index >= 0 ? c->index : manager_free_index(m, -1);
	r = device_new(m, c->name, index, true, &c->keys, &d);
	if (r >= 0) {
		d->index_fixed = c->index >= 0;
		r = manager_add(m, d);
		if (r < 0)
			device_free(d);
	}
	if (r < 0)
		log_error("%s:%u: device %s: %s", c->file, c->line, c->name, strerror(-r));
	else
		device_event(d, EV_START, NULL);
}

static void load(struct manager *m)
{
	for (size_t i = 0; i < m->conf->n_problems; i++) {
		const struct conf_problem *p = &m->conf->problems[i];

		log_line(p->fatal ? LOG_ERR : LOG_WARNING, "%s:%u: %s", p->file, p->line,
			 p->text);
	}
	for (size_t i = 0; i < m->conf->n_devices; i++)
		if (m->conf->devices[i].automatic)
			manager_load_device(m, &m->conf->devices[i]);
	programs_check(m);
}

static int on_again(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct manager *m = userdata;

	m->load_timer = sd_event_source_disable_unref(m->load_timer);
	if (m->load_due)
		manager_load(m);
	return 0;
}

/* What is attached needs us nevertheless: out of memory or of processes, or the files do not
 * come.  When they may be on a device that is away, its return is waited for. */
static void load_later(struct manager *m, int error)
{
	int r;

	if (!m->load_failed)
		log_error("cannot read the configuration now: %s; it is tried again until it can "
			  "be", conf_fetch_strerror(error));
	m->load_failed = true;
	if (m->load_timer || (error == -ETIMEDOUT && manager_any_out(m)))
		return;
	r = sd_event_add_time_relative(m->event, &m->load_timer, CLOCK_MONOTONIC, AGAIN_USEC,
				       USEC_PER_MSEC, on_again, m);
	if (r < 0)
		log_error("cannot plan to read the configuration again: %s", strerror(-r));
}

static void loaded(struct manager *m, int r, struct conf *fresh, void *userdata)
{
	m->loading = false;
	if (r == -ECANCELED)
		return;
	if (r < 0) {
		load_later(m, r);
		return;
	}
	manager_set_conf(m, fresh);
	m->load_due = m->load_failed = false;
	load(m);
}

void manager_load_due(struct manager *m)
{
	if (m->load_due && !m->loading && !manager_any_out(m))
		manager_load(m);
}

void manager_load(struct manager *m)
{
	m->load_due = true;
	if (m->loading)
		return;
	m->loading = true;
	conf_fetch(m, loaded, NULL);
}
