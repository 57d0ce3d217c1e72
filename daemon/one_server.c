/* A server that allows several connections (NBD protocol, NBD_FLAG_CAN_MULTI_CONN) promises
 * that what was flushed over one of them is flushed for all, and that all read the same: of
 * its own, and not of another server with the same data.  Nor need the addresses of one name
 * be those of one machine.  So while a connection lives, or is given to the kernel, or waits
 * for that, all others of its device go where it goes. */
#include "daemon/one_server.h"

#include <string.h>

#include "daemon/link.h"
#include "daemon/move.h"
#include "daemon/retry.h"

static bool is_bound(const struct link *l)
{
	return l->state == LINK_READY || l->state == LINK_HANDED || l->state == LINK_ALIVE;
}

bool one_server_in_use(const struct device *d)
{
	for (size_t i = 0; i < d->n_links; i++)
		if (d->links[i].state != LINK_IDLE)
			return true;
	return false;
}

static bool any_bound(const struct device *d)
{
	for (size_t i = 0; i < d->n_links; i++)
		if (is_bound(&d->links[i]))
			return true;
	return false;
}

/* ---- which one to dial -------------------------------------------------------------- */

static struct nbdd_address *find_peer(const struct server *s, const char *peer)
{
	char text[LINK_PEER_MAX];

	for (size_t i = 0; i < s->n_addresses; i++) {
		link_format_peer(text, &s->addresses[i].addr, s->addresses[i].len);
		if (strcmp(text, peer) == 0)
			return &s->addresses[i];
	}
	return NULL;
}

/* A state that an nbdd left may say another server than the one that its links are with. */
static bool follow(const struct link *other, struct target *t, struct server *ret)
{
	for (size_t i = 0; i < t->n_servers; i++) {
		size_t place = (t->current + i) % t->n_servers;
		struct nbdd_address *a = find_peer(&t->servers[place], other->peer);

		if (!a)
			continue;
		t->current = place;
		*ret = t->servers[place];
		ret->addresses = a;
		ret->n_addresses = 1;
		return true;
	}
	return false;
}

void one_server_choose(const struct link *l, struct target *t, struct server *ret)
{
	const struct device *d = l->device;
	const struct link *links = l->candidate ? d->move->links : d->links;

	for (size_t i = 0; i < d->n_links; i++)
		if (&links[i] != l && is_bound(&links[i]) && follow(&links[i], t, ret))
			return;
	*ret = *target_server(t);
}

/* ---- when another is ---------------------------------------------------------------- */

bool one_server_next(struct device *d)
{
	struct target *t = &d->target;

	if (t->n_servers == 0)
		return false;
	if (one_server_in_use(d)) {
		d->round = 0;
		return false;
	}
	t->current = (t->current + 1) % t->n_servers;
	if (++d->round < t->n_servers)
		return true;
	d->round = 0;
	d->resolve_again = true;
	return false;
}

static void give_up_attempts(struct device *d)
{
	bool any = false;

	for (size_t i = 0; i < d->n_links; i++)
		if (d->links[i].state == LINK_CONNECTING) {
			link_reset(&d->links[i]);
			any = true;
		}
	if (any && d->state != STATE_DETACHING)
		retry_now(d);
}

/* Export and TLS stay: they are of the same keys, and attempts under way point to them. */
static void exchange_servers(struct target *t, struct target *fresh, size_t current)
{
	struct target old = *t;

	memcpy(t->servers, fresh->servers, sizeof(t->servers));
	t->n_servers = fresh->n_servers;
	t->current = current;
	memcpy(fresh->servers, old.servers, sizeof(old.servers));
	fresh->n_servers = old.n_servers;
}

void one_server_renew(struct device *d, struct target *fresh)
{
	size_t place = 0;

	while (place < fresh->n_servers &&
	       !server_same(&fresh->servers[place], target_server(&d->target)))
		place++;
	if (place < fresh->n_servers || !any_bound(d)) {
		if (place == fresh->n_servers) {
			give_up_attempts(d);
			place = 0;
		}
		exchange_servers(&d->target, fresh, place);
	} else {
		d->resolve_again = true;	/* when its last connection is lost */
	}
	target_deinit(fresh);
}
