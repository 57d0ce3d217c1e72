#include "daemon/adopt.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "daemon/device_tls.h"
#include "daemon/errand.h"
#include "daemon/event.h"
#include "daemon/link.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "daemon/news.h"
#include "daemon/report.h"
#include "daemon/retry.h"
#include "daemon/save.h"
#include "daemon/store.h"
#include "daemon/transitions.h"
#include "daemon/warrant.h"
#include "lib/util/cleanup.h"
#include "lib/util/escape.h"

/* ---- descriptors ------------------------------------------------------------------- */

static int take_fd(struct adopt_fds *fds, uint64_t inode)
{
	struct stat st;

	for (size_t i = 0; i < fds->n; i++)
		if (fds->fds[i] >= 0 && fstat(fds->fds[i], &st) == 0 && st.st_ino == inode)
			return STEAL_FD(fds->fds[i]);
	return -1;
}

void adopt_fds_close(struct adopt_fds *fds)
{
	for (size_t i = 0; i < fds->n; i++)
		fd_close(fds->fds[i]);
	free(fds->fds);
	*fds = (struct adopt_fds){};
}

/* ---- one device -------------------------------------------------------------------- */

/* Is the kernel's device the one of S?  1, 0 (it has gone), or -errno. */
static int kernel_has(const struct state *s, struct nbdk_info *info,
		      char error[static STATE_ERROR_MAX])
{
	int r = nbdk_sysfs_read(s->index, info);

	if (r == -ENOENT || (r == 0 && !info->connected))
		return 0;
	if (r < 0) {
		snprintf(error, STATE_ERROR_MAX, "cannot read /sys/block/nbd%u: %s", s->index,
			 strerror(-r));
		return r;
	}
	/* Somebody else's by now: ours has gone. */
	return strcmp(info->backend, s->identifier) == 0;
}

static int check_doubles(struct manager *m, const struct state *s,
			 char error[static STATE_ERROR_MAX])
{
	const struct device *d = manager_find_named(m, s->name);

	if (!d)
		d = manager_find_index(m, s->index);
	if (!d)
		return 0;
	snprintf(error, STATE_ERROR_MAX, "/dev/nbd%u, '%s': device '%s' (/dev/nbd%d) has been "
		 "taken over already", s->index, s->name, d->name, d->index);
	return -EEXIST;
}

static int make_device(struct manager *m, struct state *s, const struct nbdk_info *info,
		       struct device **ret)
{
	struct device *d;
	int r = device_new(m, s->name, (int)s->index, s->automatic, &s->keys, &d);

	if (r < 0)
		return r;
	memcpy(d->identifier, s->identifier, sizeof(d->identifier));
	memcpy(d->warning, s->warning, sizeof(d->warning));
	clean_text(d->ktls.distrust, sizeof(d->ktls.distrust), s->distrust,
		   strlen(s->distrust));
	d->unwarranted = !warrant_covers(m, s);
	d->index_fixed = s->index_fixed;
	d->detach_forced = s->forced;
	d->info = s->info;
	d->block_size = s->block_size;
	d->requeue_usec = s->requeue_usec;
	d->outages = s->outages;
	d->target = s->target;
	s->target = (struct target){};
	d->n_links = s->n_links;
	/* The kernel's word counts: it may have grown when the daemon was killed. */
	d->size = info->size;
	d->info.size = MAX(d->info.size, info->size);
	d->settings_due = true;
	d->timeout_due = s->timeout_due;
	d->waits_longer = true;		/* the kernel may not have been told of a change */
	r = manager_add(m, d);
	if (r < 0)
		device_free(d);
	else
		*ret = d;
	return r;
}

static void tell_unknown(const struct device *d, const struct state *s)
{
	char more[32] = "";

	if (s->n_unknown > 1)
		snprintf(more, sizeof(more), " and %u more", s->n_unknown - 1);
	if (s->n_unknown)
		device_log(d, LOG_WARNING, "it was attached with the key '%s'%s, which this nbdd ("
			   NBDD_VERSION ") does not know: passed over", s->unknown, more);
}

/* A socket that was handed to the kernel, and is still there now that its daemon is not, is
 * the kernel's: nobody else has it. */
static unsigned adopt_links(struct device *d, const struct state *s, struct adopt_fds *fds)
{
	unsigned with_fd = 0;

	for (size_t i = 0; i < d->n_links; i++) {
		const struct state_link *from = &s->links[i];
		int fd;

		if (from->phase == LINK_PHASE_DEAD || !from->sock.inode)
			continue;
		fd = take_fd(fds, from->sock.inode);
		memcpy(d->links[i].peer, from->peer, sizeof(from->peer));
		d->links[i].tls = from->tls;
		link_tls_clean(&d->links[i].tls);
		link_relay_adopt(&d->links[i], (pid_t)from->relay_pid);
		if (link_adopt(&d->links[i], &from->sock, fd, from->since_real_usec))
			with_fd += fd >= 0;
	}
	return with_fd;
}

static void on_read(struct device *d, const struct errand_result *result)
{
	if (result->error >= 0)
		return;
	device_log(d, LOG_WARNING, "a read has not come through a connection that was taken "
		   "over (%s): made anew", strerror(-result->error));
	for (size_t i = 0; i < d->n_links; i++)
		if (d->links[i].state == LINK_ALIVE && d->links[i].fd < 0) {
			device_event(d, EV_LINK_DEAD, &(struct event_detail){
				.link = &d->links[i], .text = "nothing comes through" });
			return;
		}
}

/* Of a link without a descriptor and relay the kernel may not tell whether it is alive: then
 * see whether anything comes through. */
static void try_link(struct device *d)
{
	struct nbdk_sock_info info;

	for (size_t i = 0; i < d->n_links; i++)
		if (d->links[i].state == LINK_ALIVE && d->links[i].fd < 0 &&
		    !d->links[i].relay.there &&
		    nbdk_diag_ask(d->manager->diag, &d->links[i].sock, &info) == 0 &&
		    !info.sure) {
			if (errand_first_read(d, &d->errand, on_read) < 0)
				device_log(d, LOG_WARNING, "cannot try a connection");
			return;
		}
}

/* The outage may have begun, or ended, while no daemon ran. */
static void begin(struct device *d)
{
	size_t alive = device_links_alive(d);

	d->dead_links = (unsigned)(d->n_links - alive);
	if (alive == d->n_links)
		d->state = STATE_CONNECTED;
	else
		d->state = alive ? STATE_DEGRADED : STATE_RECONNECTING;
	if (alive && d->outages.began_usec)
		outage_end(d);
	else if (!alive && d->outages.began_usec)
		outage_resume(d);
	else if (!alive)
		outage_begin(d, "connection lost while no nbdd ran");
	if (alive < d->n_links)
		retry_now(d);
	device_tls_refresh(d);
	save_device(d);
}

int adopt_device(struct manager *m, struct state *s, struct adopt_fds *fds,
		 char error[static STATE_ERROR_MAX])
{
	struct nbdk_info info;
	unsigned with_fd;
	struct device *d;
	int r = kernel_has(s, &info, error);

	if (r <= 0)
		return r < 0 ? r : -ENOENT;
	r = check_doubles(m, s, error);
	if (r < 0)
		return r;
	r = make_device(m, s, &info, &d);
	if (r < 0) {
		snprintf(error, STATE_ERROR_MAX, "%s", strerror(-r));
		return r;
	}
	tell_unknown(d, s);
	with_fd = adopt_links(d, s, fds);
	begin(d);
	news_tell(d, NEWS_ADOPTED, "/dev/nbd%d taken over: %s, %zu of %zu connections alive, %u "
		   "with its descriptor", d->index, device_state_name(d->state),
		   device_links_alive(d), d->n_links, with_fd);
	if (s->phase == PHASE_DETACHING) {
		device_event(d, EV_DETACH, NULL);
		return 0;
	}
	(void)link_still_attached(d);
	links_restore(d);
	try_link(d);
	return 0;
}

/* ---- all that there are ------------------------------------------------------------ */

struct adoption {
	struct manager *m;
	struct adopt_fds *fds;
};

/* What a state says of a device that is not there. */
static void tell_gone(const struct state *s)
{
	static const char *const words[N_PHASES] = {
		[PHASE_ATTACHING] = "was never attached: the daemon ended before",
		[PHASE_ATTACHED] = "has been disconnected while no nbdd ran",
		[PHASE_DETACHING] = "detached",
	};

	log_line(s->phase == PHASE_ATTACHED ? LOG_WARNING : LOG_NOTICE, "%s: /dev/nbd%u %s",
		 s->name, s->index, words[s->phase]);
}

static void adopt_state(struct adoption *a, const char *name, struct state *s)
{
	char error[STATE_ERROR_MAX] = "";
	struct device *d;
	int r;

	if (strcmp(s->boot_id, a->m->boot_id) != 0) {
		log_info("%s: its state is of an earlier boot: removed", s->name);
		store_remove(a->m->store, name, NULL);
		return;
	}
	if (strcmp(s->name, name) != 0) {
		report_file(a->m, name, "it is of a device of another name");
		return;
	}
	d = manager_find_named(a->m, s->name);
	if (d && strcmp(d->identifier, s->identifier) == 0)
		return;		/* it came by a live handover */
	r = adopt_device(a->m, s, a->fds, error);
	if (r == -ENOENT) {
		tell_gone(s);
		store_remove(a->m->store, name, NULL);
	} else if (r < 0) {
		report_file(a->m, name, error);
	}
}

static void on_file(const char *name, const char *text, size_t len, int error, void *userdata)
{
	struct adoption *a = userdata;
	char why[STATE_ERROR_MAX];
	struct state *s;
	int r;

	if (error < 0) {
		report_file(a->m, name, error == -EPERM
			    ? "it is not a file that root alone can write" : strerror(-error));
		return;
	}
	s = calloc(1, sizeof(*s));
	if (!s)
		return;
	r = state_parse(text, len, s, why);
	if (r < 0)
		report_file(a->m, name, why);
	else
		adopt_state(a, name, s);
	state_deinit(s);
	free(s);
}

/* A device of an nbdd that none of the files told of. */
static int on_device(unsigned index, void *userdata)
{
	static const size_t prefix = sizeof(DEVICE_IDENTIFIER_PREFIX) - 1;
	struct manager *m = userdata;
	struct nbdk_info info;

	if (manager_find_index(m, index) || nbdk_sysfs_connection(index, &info) < 0 ||
	    !info.connected || strncmp(info.backend, DEVICE_IDENTIFIER_PREFIX, prefix) != 0)
		return 0;
	report_device(m, index, info.backend);
	return 0;
}

void adopt_devices(struct manager *m, struct adopt_fds *fds)
{
	struct adoption a = { .m = m, .fds = fds };
	int r;

	if (m->reports)
		m->reports->n = 0;
	m->reports_left_out = false;
	r = m->store ? 0 : store_open(m->options.runtime_dir, &m->options.owners, &m->store);

	if (r >= 0)
		r = store_foreach(m->store, on_file, &a);
	if (r < 0)
		log_error("cannot read %s/" STORE_DIR ": %s", m->options.runtime_dir,
			  strerror(-r));
	r = nbdk_foreach(on_device, m);
	if (r < 0)
		log_warning("cannot look at every nbd device: %s", strerror(-r));
}
