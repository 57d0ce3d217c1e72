#include "daemon/followers.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/manager.h"
#include "daemon/news.h"
#include "daemon/proto/varlink.h"

#define FOLLOWERS_MAX VARLINK_CLIENTS_MAX

struct follower {
	struct varlink_call *call;
	char name[CONF_NAME_MAX + 1];	/* or /dev/nbdN; "": all */
	uint64_t next;			/* the number of the event that it gets next */
	struct manager *manager;
};

struct followers {
	struct news ring[NEWS_KEPT];	/* event number i is in i % NEWS_KEPT */
	uint64_t told;			/* so many since the start */
	struct follower *list[FOLLOWERS_MAX];
	size_t n;
};

static bool concerns(const struct follower *f, const struct news *n)
{
	const char *device = f->name;

	if (!*f->name || strcmp(f->name, n->name) == 0)
		return true;
	return strcmp(device, n->device) == 0 ||
	       (*n->device && strcmp(device, n->device + strlen("/dev/")) == 0);
}

static void add_string(struct json_object *o, const char *key, const char *value)
{
	json_object_object_add(o, key, json_object_new_string(value));
}

static struct json_object *describe(const struct news *n)
{
	struct json_object *o = json_object_new_object();

	add_string(o, "event", news_name(n->kind));
	add_string(o, "device", n->device);
	add_string(o, "name", n->name);
	json_object_object_add(o, "time", json_object_new_int64((int64_t)n->real_usec));
	add_string(o, "message", n->message);
	return o;
}

static void tell(struct follower *f, const struct news *n, uint64_t lost)
{
	struct json_object *reply = json_object_new_object();

	json_object_object_add(reply, "event", n ? describe(n) : NULL);
	json_object_object_add(reply, "lost", json_object_new_int64((int64_t)lost));
	/* When it cannot be sent, the client is cut off. */
	(void)varlink_call_notify(f->call, reply);
}

/* The next thing that F is to know, as soon as it has taken the one before. */
static void go_on(struct varlink_call *call, void *userdata)
{
	struct follower *f = userdata;
	struct followers *all = f->manager->followers;
	uint64_t oldest = all->told > NEWS_KEPT ? all->told - NEWS_KEPT : 0, lost = 0;

	if (f->next < oldest) {
		lost = oldest - f->next;
		f->next = oldest;
	}
	while (f->next < all->told && !concerns(f, &all->ring[f->next % NEWS_KEPT]))
		f->next++;
	if (f->next < all->told)
		tell(f, &all->ring[f->next++ % NEWS_KEPT], lost);
	else if (lost)
		tell(f, NULL, lost);
}

void followers_tell(struct manager *m, const struct news *n)
{
	struct followers *all = m->followers;

	if (!all)
		return;
	all->ring[all->told++ % NEWS_KEPT] = *n;
	for (size_t i = 0; i < all->n; i++)
		varlink_call_wake(all->list[i]->call);
}

static void follower_gone(struct varlink_call *call, void *userdata)
{
	struct follower *f = userdata;
	struct followers *all = f->manager->followers;

	for (size_t i = 0; i < all->n; i++)
		if (all->list[i] == f) {
			all->list[i] = all->list[--all->n];
			break;
		}
	varlink_call_drop(call);
	free(f);
}

int news_follow(struct manager *m, struct varlink_call *call, const char *name)
{
	struct followers *all = m->followers;
	struct follower *f;

	if (!all)
		all = m->followers = calloc(1, sizeof(*all));
	if (!all)
		return -ENOMEM;
	if (all->n == FOLLOWERS_MAX)
		return -EBUSY;
	f = calloc(1, sizeof(*f));
	if (!f)
		return -ENOMEM;
	*f = (struct follower){ .call = call, .next = all->told, .manager = m };
	snprintf(f->name, sizeof(f->name), "%s", name ? name : "");
	all->list[all->n++] = f;
	varlink_call_set_gone(call, follower_gone, f);
	varlink_call_set_drained(call, go_on, f);
	tell(f, NULL, 0);		/* that it has begun */
	return 0;
}

/* After the server, which has told all followers that they are gone. */
void news_free(struct manager *m)
{
	free(m->followers);
}
