/* A connector's job on its way to its process: all of it in one piece of memory.  What comes
 * out of that is checked as if a stranger had written it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <libnbd.h>
#include "daemon/connector_child.h"
#include "daemon/tls_image.h"
#include "lib/util/cleanup.h"

#define TEXT_MAX	CONF_VALUE_MAX	/* bytes of a key's value */

/* TLS and samples are those of a task that is alone, and so is a size that is known. */
struct order {
	uint32_t n;			/* tasks */
	uint32_t n_addresses;
	struct nbdd_address addresses[TARGET_ADDRESSES_MAX];
	char host[TARGET_HOST_MAX + 1];
	char label[TARGET_HOST_MAX + 10];
	uint64_t preinit_size;
	uint32_t mode, kernel, verify_peer, load;
	uint32_t distrusted, has_hostname, has_priority, has_samples;
	char distrust[TLS_WHY_MAX];
	char hostname[TEXT_MAX + 1];
	char priority[TEXT_MAX + 1];
	struct samples samples;
	uint64_t image_size;		/* bytes of a struct tls_image behind the exports, or 0 */
	char exports[][TARGET_EXPORT_MAX + 1];
};

static size_t exports_end(size_t n)
{
	size_t end = offsetof(struct order, exports) + n * sizeof(((struct order *)0)->exports[0]);

	return (end + _Alignof(max_align_t) - 1) / _Alignof(max_align_t) * _Alignof(max_align_t);
}

/* ---- to it ------------------------------------------------------------------------- */

/* Is there a text, and if so, does it fit? */
static int put(char *to, size_t size, const char *text, uint32_t *ret_there)
{
	size_t len = text ? strlen(text) : 0;

	if (len >= size)
		return -ENAMETOOLONG;
	if (text)
		memcpy(to, text, len + 1);
	if (ret_there)
		*ret_there = text != NULL;
	return 0;
}

static int put_plan(struct order *o, const struct tls_plan *p)
{
	int r;

	o->mode = (uint32_t)p->mode;
	o->kernel = p->kernel;
	o->verify_peer = p->verify_peer;
	o->load = p->load;
	r = put(o->distrust, sizeof(o->distrust), p->distrust, &o->distrusted);
	if (r >= 0)
		r = put(o->hostname, sizeof(o->hostname), p->hostname, &o->has_hostname);
	if (r >= 0)
		r = put(o->priority, sizeof(o->priority), p->priority, &o->has_priority);
	return r;
}

static int put_server(struct order *o, const struct server *s)
{
	int r = put(o->host, sizeof(o->host), s->host, NULL);

	if (r >= 0)
		r = put(o->label, sizeof(o->label), s->label, NULL);
	if (r < 0 || s->n_addresses == 0 || s->n_addresses > TARGET_ADDRESSES_MAX)
		return r < 0 ? r : -E2BIG;
	memcpy(o->addresses, s->addresses, s->n_addresses * sizeof(*s->addresses));
	o->n_addresses = (uint32_t)s->n_addresses;
	return 0;
}

static int put_task(struct order *o, size_t i, const struct connector_task *t)
{
	return put(o->exports[i], sizeof(o->exports[i]), t->target->export_name, NULL);
}

int connector_job_write(const struct connector_job *job, struct job *ret)
{
	const struct connector_task *first = &job->tasks[0];
	bool tls = first->tls.mode != LIBNBD_TLS_DISABLE;
	size_t image_size = 0, end = exports_end(job->n);
	const struct tls_image *image = tls ? tls_secrets_image(first->tls.secrets, &image_size)
					    : NULL;
	struct job j = JOB_NULL;
	struct order *o;
	int r = job_new(end + image_size, &j);

	if (r < 0)
		return r;
	o = j.data;
	o->n = (uint32_t)job->n;
	o->preinit_size = first->target->preinit_size;
	o->has_samples = first->samples != NULL;
	if (first->samples)
		o->samples = *first->samples;
	o->image_size = image_size;
	if (image)
		memcpy((char *)j.data + end, image, image_size);
	r = put_server(o, first->server);
	if (r >= 0)
		r = put_plan(o, &first->tls);
	for (size_t i = 0; i < job->n && r >= 0; i++)
		r = put_task(o, i, &job->tasks[i]);
	if (r < 0)
		job_free(&j);
	else
		*ret = j;
	return r;
}

/* ---- in it ------------------------------------------------------------------------- */

/* What the tasks point to. */
struct unpacked {
	struct connector_job job;
	struct server server;
	struct target targets[CONNECTOR_TASKS_MAX];
};

static bool ends(const char *text, size_t size)
{
	return memchr(text, '\0', size) != NULL;
}

static bool addresses_valid(const struct order *o)
{
	if (o->n_addresses == 0 || o->n_addresses > TARGET_ADDRESSES_MAX)
		return false;
	for (size_t i = 0; i < o->n_addresses; i++)
		if (o->addresses[i].len > sizeof(o->addresses[i].addr))
			return false;
	return ends(o->host, sizeof(o->host)) && ends(o->label, sizeof(o->label));
}

static bool plan_valid(const struct order *o)
{
	return (o->mode == LIBNBD_TLS_DISABLE || o->mode == LIBNBD_TLS_ALLOW ||
		o->mode == LIBNBD_TLS_REQUIRE) && o->kernel <= CONF_KERNEL_TLS_OFF &&
	       (o->mode == LIBNBD_TLS_DISABLE || o->image_size) &&
	       ends(o->distrust, sizeof(o->distrust)) &&
	       ends(o->hostname, sizeof(o->hostname)) && ends(o->priority, sizeof(o->priority));
}

static bool valid(const struct job *from)
{
	const struct order *o = from->data;

	if (from->size < sizeof(*o) || o->n == 0 || o->n > CONNECTOR_TASKS_MAX ||
	    from->size < exports_end(o->n) || from->size - exports_end(o->n) != o->image_size)
		return false;
	if (!addresses_valid(o) || !plan_valid(o) || o->samples.n > SAMPLES_MAX)
		return false;
	for (size_t i = 0; i < o->samples.n; i++)
		if (o->samples.list[i].len > SAMPLE_BYTES)
			return false;
	for (size_t i = 0; i < o->n; i++)
		if (!ends(o->exports[i], sizeof(o->exports[i])))
			return false;
	return o->n == 1 || (o->mode == LIBNBD_TLS_DISABLE && !o->has_samples && !o->preinit_size);
}

static void fill_server(struct server *s, struct order *o)
{
	memcpy(s->host, o->host, sizeof(s->host));
	memcpy(s->label, o->label, sizeof(s->label));
	s->n_addresses = o->n_addresses;
	s->addresses = o->addresses;
}

int connector_job_read(const struct job *from, struct connector_job **ret)
{
	struct order *o = from->data;
	struct tls_image *image;
	struct unpacked *u;

	if (!valid(from))
		return -EPROTO;
	image = o->image_size ? (void *)((char *)from->data + exports_end(o->n)) : NULL;
	if (image && (o->image_size < sizeof(*image) || tls_image_size(image) != o->image_size))
		return -EPROTO;
	u = calloc(1, sizeof(*u));
	if (!u)
		return -ENOMEM;
	u->job.n = o->n;
	fill_server(&u->server, o);
	for (size_t i = 0; i < o->n; i++) {
		u->targets[i].export_name = o->exports[i];
		u->targets[i].preinit_size = o->preinit_size;
		u->job.tasks[i] = (struct connector_task){
			.server = &u->server, .target = &u->targets[i],
			.samples = o->has_samples ? &o->samples : NULL,
			.tls = { .mode = (int)o->mode, .kernel = o->kernel, .image = image,
				 .distrust = o->distrusted ? o->distrust : NULL,
				 .hostname = o->has_hostname ? o->hostname : NULL,
				 .priority = o->has_priority ? o->priority : NULL,
				 .verify_peer = o->verify_peer != 0,
				 .load = o->load != 0 } };
	}
	*ret = &u->job;
	return 0;
}
