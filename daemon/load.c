/* The configured devices, at the start. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/child.h"
#include "daemon/event.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "daemon/programs.h"
#include "lib/util/cleanup.h"
#include "lib/util/clock.h"

#define PROBE_LIMIT_USEC (5 * USEC_PER_SEC)
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

static void read_through(const char *path)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	char buf[4096];

	while (fd >= 0 && read(fd, buf, sizeof(buf)) > 0)
		;
}

/* What the page cache has can be read without the device that it came from. */
static void probe_main(int sock, int kept, void *arg)
{
	const struct manager *m = arg;

	read_through(m->options.config);
	read_through(m->options.nbdtab);
	fd_send(sock, "", 1, NULL, 0);
}

struct probe {
	struct manager *manager;
	struct child *child;
	manager_probed_fn done;
	void *userdata;
};

static void on_probed(const struct child_answer *answer, void *userdata)
{
	struct probe *p = userdata;
	struct manager *m = p->manager;
	struct probe copy = *p;

	fd_close(answer->fd);
	p->child = NULL;
	manager_probe_free(m);
	copy.done(m, answer->error >= 0, copy.userdata);
}

void manager_probe_free(struct manager *m)
{
	if (m->probe)
		child_cancel(m->probe->child);
	free(m->probe);
	m->probe = NULL;
}

/* With a device out the files may be out of reach, for it may hold them: then a child looks
 * first, which may hang. */
int manager_probe_conf(struct manager *m, manager_probed_fn done, void *userdata)
{
	struct probe *p;
	int r;

	if (!manager_any_out(m)) {
		done(m, true, userdata);
		return 0;
	}
	p = malloc(sizeof(*p));
	if (!p)
		return -ENOMEM;
	*p = (struct probe){ .manager = m, .done = done, .userdata = userdata };
	r = child_start(m->event, &(struct child_spec){
				.what = "configuration", .run = probe_main, .arg = m,
				.sandbox = m->sandbox, .role = SANDBOX_READ,
				.limit_usec = PROBE_LIMIT_USEC },
			on_probed, p, &p->child);
	if (r < 0)
		free(p);
	else
		m->probe = p;
	return r;
}

static int on_again(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct manager *m = userdata;

	m->load_timer = sd_event_source_disable_unref(m->load_timer);
	if (m->load_due)
		manager_load(m);
	return 0;
}

/* Out of memory or of processes: what is attached needs us nevertheless. */
static void load_later(struct manager *m, int error)
{
	int r;

	if (!m->load_failed)
		log_error("cannot read the configuration now: %s; it is tried again each second",
			  strerror(-error));
	m->load_failed = true;
	if (m->load_timer)
		return;
	r = sd_event_add_time_relative(m->event, &m->load_timer, CLOCK_MONOTONIC, AGAIN_USEC,
				       USEC_PER_MSEC, on_again, m);
	if (r < 0)
		log_error("cannot plan to read the configuration again: %s", strerror(-r));
}

static void load_readable(struct manager *m, bool readable, void *userdata)
{
	int r;

	if (!readable) {
		log_warning("the configuration cannot be read while a device is without its "
			    "server: it is read when all are back");
		return;
	}
	m->conf_readable = true;
	r = manager_read_conf(m);
	m->conf_readable = false;
	if (r < 0) {
		load_later(m, r);
		return;
	}
	m->load_due = m->load_failed = false;
	load(m);
}

void manager_load_due(struct manager *m)
{
	if (m->load_due && !m->probe && !manager_any_out(m))
		manager_load(m);
}

void manager_load(struct manager *m)
{
	int r;

	m->load_due = true;
	r = m->probe ? -EBUSY : manager_probe_conf(m, load_readable, NULL);
	if (r < 0)
		load_later(m, r);
}
