#include "daemon/save.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/fdstore.h"
#include "daemon/kcall.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "daemon/move.h"
#include "daemon/status.h"
#include "daemon/store.h"
#include "daemon/warrant.h"
#include "lib/util/cleanup.h"
#include "lib/util/clock.h"

#define LINE_KEPT	128		/* the first line has the checksum of the rest */
#define AGAIN_USEC	USEC_PER_SEC

struct saved {
	struct store_file *file;
	char line[LINE_KEPT];		/* of what was written last */
	uint64_t place;			/* where that says the data is; 0: not known */
};

/* Before NBD_CMD_CONNECT there is nothing that a next daemon could find. */
static bool phase_of(const struct device *d, unsigned *ret)
{
	bool handed = false;

	for (size_t i = 0; i < d->n_links; i++)
		handed |= d->links[i].state == LINK_HANDED;
	if (d->state == STATE_GONE || (d->state == STATE_CONNECTING && !handed))
		return false;
	if (d->detach_wanted)
		*ret = PHASE_DETACHING;
	else if (d->state == STATE_CONNECTING || d->state == STATE_ATTACHING)
		*ret = PHASE_ATTACHING;
	else
		*ret = PHASE_ATTACHED;
	return true;
}

static void describe_link(const struct link *l, struct state_link *s)
{
	if (l->state != LINK_HANDED && l->state != LINK_ALIVE)
		return;
	s->phase = l->state == LINK_ALIVE ? LINK_PHASE_ALIVE : LINK_PHASE_HANDED;
	s->sock = l->sock;
	s->since_real_usec = l->since_real_usec;
	s->tls = l->tls;
	s->relay_pid = (uint32_t)l->relay.pid;
	s->tls.peer_expires = MAX(l->tls.peer_expires, (int64_t)0);
	s->tls.own_expires = MAX(l->tls.own_expires, (int64_t)0);
	memcpy(s->peer, l->peer, sizeof(s->peer));
}

/* May the kernel have another timeout than the keys?  What a move has at the other server counts
 * like the device's own: either may be what is told next. */
static bool timeout_due(const struct device *d)
{
	return d->timeout_due || kernel_call_sets_timeout(d->call) ||
	       (d->move && d->move->keys.timeout_usec != d->keys.timeout_usec);
}

bool save_describe(const struct device *d, struct state *ret)
{
	unsigned phase;

	if (!phase_of(d, &phase))
		return false;
	*ret = (struct state){
		.phase = phase, .index = (uint32_t)d->index, .index_fixed = d->index_fixed,
		.automatic = d->automatic, .forced = d->detach_forced, .keys = d->keys,
		.info = d->info, .size = d->size, .grow_to = d->grow_to,
		.block_size = d->block_size, .requeue_usec = d->requeue_usec,
		.target = d->target, .outages = d->outages, .n_links = (uint32_t)d->n_links,
		.timeout_due = timeout_due(d),
	};
	memcpy(ret->name, d->name, sizeof(ret->name));
	memcpy(ret->identifier, d->identifier, sizeof(ret->identifier));
	memcpy(ret->boot_id, d->manager->boot_id, sizeof(ret->boot_id));
	memcpy(ret->warning, d->warning, sizeof(ret->warning));
	memcpy(ret->distrust, d->ktls.distrust, sizeof(ret->distrust));
	for (size_t i = 0; i < d->n_links; i++)
		describe_link(&d->links[i], &ret->links[i]);
	return true;
}

static int on_again(sd_event_source *s, uint64_t usec, void *userdata)
{
	struct manager *m = userdata;

	m->save_timer = sd_event_source_disable_unref(m->save_timer);
	if (m->ready_due)
		status_ready(m);
	if (m->genl_due)
		fdstore_genl(m);
	for (size_t i = 0; i < m->n_devices; i++) {
		save_device(m->devices[i]);
		for (size_t k = 0; k < m->devices[i]->n_links; k++)
			fdstore_link(&m->devices[i]->links[k]);
	}
	return 0;
}

void save_later(struct manager *m)
{
	if (!m->save_timer)
		sd_event_add_time_relative(m->event, &m->save_timer, CLOCK_MONOTONIC,
					   AGAIN_USEC, USEC_PER_SEC, on_again, m);
}

static void note(struct device *d, int r)
{
	if (r < 0 && r != d->save_error)
		device_log(d, LOG_WARNING, "cannot save its state in %s/" STORE_DIR ": %s; the "
			   "next nbdd would not know the device", d->manager->options.runtime_dir,
			   strerror(-r));
	else if (r >= 0 && d->save_error < 0)
		device_log(d, LOG_NOTICE, "its state is saved again");
	d->save_error = r;
	if (r < 0)
		save_later(d->manager);
}

static uint64_t hash(uint64_t h, const void *data, size_t len)
{
	const unsigned char *p = data;

	for (size_t i = 0; i < len; i++)
		h = (h ^ p[i]) * UINT64_C(0x100000001b3);	/* FNV-1a */
	return h;
}

/* The server and its export, as one number; never 0. */
static uint64_t place_of(const struct target *t)
{
	const struct server *s = target_server(t);
	const char *export = t->export_name ? t->export_name : "";
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	h = hash(h, export, strlen(export) + 1);
	h = hash(h, s->label, strlen(s->label) + 1);
	for (size_t i = 0; i < s->n_addresses; i++)
		h = hash(h, &s->addresses[i].addr, s->addresses[i].len);
	return h ? h : 1;
}

static int write_text(struct device *d, const char *text, size_t len)
{
	struct saved *s = d->saved;
	struct manager *m = d->manager;
	size_t line = MIN(strcspn(text, "\n"), sizeof(s->line) - 1);
	int r;

	if (!s)
		s = d->saved = calloc(1, sizeof(*s));
	if (!s)
		return -ENOMEM;
	if (strncmp(s->line, text, line) == 0 && s->line[line] == '\0')
		return 0;
	r = m->store ? 0 : store_open(m->options.runtime_dir, &m->options.owners, &m->store);
	if (r < 0)
		return r;
	r = store_write(m->store, d->name, text, len, &s->file);
	if (r < 0)
		return r;
	memcpy(s->line, text, line);
	s->line[line] = '\0';
	s->place = place_of(&d->target);
	return 0;
}

void save_device(struct device *d)
{
	_cleanup_free_ struct state *s = malloc(sizeof(*s));
	_cleanup_free_ char *text = NULL;
	size_t len;
	int r = s ? 0 : -ENOMEM;

	if (s && !save_describe(d, s)) {
		save_forget(d);
		return;
	}
	warrant_keep(d);
	if (r >= 0)
		r = state_format(s, &text, &len);
	if (r >= 0)
		r = write_text(d, text, len);
	note(d, r);
}

/* Its room is free then, and may do for what is to be written. */
static int remove_file(struct device *d)
{
	struct saved *s = d->saved;
	int r = store_remove(d->manager->store, d->name, s ? STEAL_PTR(s->file) : NULL);

	if (s && r >= 0)
		*s = (struct saved){};
	return r;
}

int save_server(struct device *d)
{
	int r;

	if (d->saved && d->saved->place == place_of(&d->target))
		return 0;
	save_device(d);
	/* Without a store there was none to read a state from either. */
	if (d->save_error >= 0 || !d->manager->store)
		return 0;
	r = remove_file(d);
	if (r < 0)
		return r;
	if (r)
		device_log(d, LOG_WARNING, "its saved state, of another server, is removed");
	save_device(d);
	return 0;
}

void save_forget(struct device *d)
{
	struct saved *s = d->saved;

	warrant_forget(d);
	if (!s)
		return;
	if (s->file)
		store_remove(d->manager->store, d->name, s->file);
	free(s);
	d->saved = NULL;
	d->save_error = 0;
}

void save_close(struct device *d)
{
	if (!d->saved)
		return;
	store_file_free(d->saved->file);
	free(d->saved);
	d->saved = NULL;
}
