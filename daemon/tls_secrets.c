#include "daemon/tls_secrets.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <libnbd.h>
#include "daemon/child.h"
#include "daemon/log.h"
#include "daemon/manager.h"
#include "daemon/tls_image.h"
#include "lib/util/cleanup.h"
#include "lib/util/clock.h"
#include "lib/util/escape.h"

/* What was read so recently is not read again: each of a device's connections asks. */
#define FRESH_USEC	(500 * USEC_PER_MSEC)
/* How long a connection waits for the reader when there are keys of before. */
#define PATIENCE_USEC	(500 * USEC_PER_MSEC)
/* A reader that hangs on a lost disk cannot be killed: it is left until the disk is back. */
#define REREAD_LIMIT_USEC	(24 * 60 * USEC_PER_MINUTE)

struct tls_secrets {
	struct manager *manager;
	char name[CONF_NAME_MAX + 1];
	tls_secrets_done_fn done;
	void *userdata;

	struct tls_image *image;	/* SIZE bytes of our own; NULL: none yet */
	size_t size;
	uint64_t read_usec;		/* when it was last read, monotonic */
	char problem[TLS_SECRETS_MESSAGE_MAX];

	struct child *reader;
	struct tls_image *shared;	/* with the reader */
	uint64_t asked_usec;
	bool awaited;			/* somebody waits for `done` */
	sd_event_source *patience;
	/* Valid at the fork. */
	const struct device_keys *keys;
	const struct target *target;
};

static struct tls_image *map(size_t size, int flags)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, flags | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	(void)madvise(p, size, MADV_DONTDUMP);
	return p;
}

static struct tls_image *unmap(struct tls_image *image, size_t size)
{
	if (image) {
		explicit_bzero(image, size);
		munmap(image, size);
	}
	return NULL;
}

/* ---- in the child ------------------------------------------------------------------ */

static int set(struct nbd_handle *h, int (*setter)(struct nbd_handle *, const char *),
	       const char *given, const char *of_uri)
{
	if (given || of_uri)
		return setter(h, given ? given : of_uri);
	return 0;
}

static void reader_main(int sock, int kept, void *arg)
{
	const struct tls_secrets *s = arg;
	const struct device_keys *k = s->keys;
	const struct target_tls *u = &s->target->uri_tls;
	struct nbd_handle *h = nbd_create();
	char byte = 0;

	if (!h || nbd_set_tls_verify_peer(h, !u->no_verify) < 0 ||
	    set(h, nbdd_set_tls_ca_file, k->tls_ca_file, NULL) < 0 ||
	    set(h, nbdd_set_tls_certificate_file, k->tls_cert_file, NULL) < 0 ||
	    set(h, nbdd_set_tls_key_file, k->tls_key_file, NULL) < 0 ||
	    set(h, nbd_set_tls_certificates, k->tls_certificates, u->certificates) < 0 ||
	    set(h, nbd_set_tls_psk_file, k->tls_psk_file, u->psk_file) < 0 ||
	    set(h, nbd_set_tls_username, k->tls_username, u->username) < 0)
		return;
	tls_image_read(h, s->shared);
	fd_send(sock, &byte, sizeof(byte), NULL, 0);
}

/* ---- in the daemon ----------------------------------------------------------------- */

/* A copy of what the reader left, which nobody else can change any more. */
static int take_image(struct tls_secrets *s, const char **ret_error)
{
	size_t size = s->shared->error ? 0 : tls_image_size(s->shared);
	struct tls_image *copy = size ? map(size, MAP_PRIVATE) : NULL;

	if (!copy) {
		*ret_error = size ? "no memory for keys" : "the reader of keys is broken";
		return -ENOMEM;
	}
	memcpy(copy, s->shared, size);
	if (tls_image_size(copy) != size ||
	    madvise(copy, size, MADV_WIPEONFORK) < 0) {
		unmap(copy, size);
		*ret_error = "cannot keep keys out of child processes";
		return -EPROTO;
	}
	if (s->image && (s->size != size || memcmp(s->image, copy, size) != 0))
		log_notice("%s: keys or certificates have changed", s->name);
	unmap(s->image, s->size);
	s->image = copy;
	s->size = size;
	return 0;
}

static void report(struct tls_secrets *s, const char *error, bool late)
{
	bool awaited = s->awaited;

	s->awaited = false;
	s->patience = sd_event_source_disable_unref(s->patience);
	if (awaited)
		s->done(error, late, s->userdata);
}

/* What cannot be used is told, and what was read before is used on. */
static void on_answer(const struct child_answer *answer, void *userdata)
{
	struct tls_secrets *s = userdata;
	char text[TLS_SECRETS_MESSAGE_MAX];
	const char *error = NULL;
	bool late = answer->error == -ETIMEDOUT;

	fd_close(answer->fd);
	s->reader = NULL;
	if (late) {
		error = "reading keys and certificates takes longer than connect-timeout";
	} else if (answer->error < 0) {
		error = "the reader of keys and certificates died";
	} else if (s->shared->error) {
		error = clean_text(text, sizeof(text), s->shared->message,
				   strnlen(s->shared->message, sizeof(s->shared->message)));
	} else if (take_image(s, &error) == 0) {
		s->read_usec = now_usec();
	}
	s->shared = unmap(s->shared, TLS_IMAGE_MAX);
	if (error && s->image && strcmp(error, s->problem) != 0)
		log_warning("%s: %s; using what was read before", s->name, error);
	snprintf(s->problem, sizeof(s->problem), "%s", error ? error : "");
	if (s->image)
		s->read_usec = now_usec();
	report(s, s->image ? NULL : s->problem, late);
}

static int on_patience(sd_event_source *source, uint64_t usec, void *userdata)
{
	report(userdata, NULL, true);
	return 0;
}

static int start_reader(struct tls_secrets *s)
{
	struct manager *m = s->manager;
	char what[16];
	int r;

	if (m->n_tls_readers >= TLS_READERS_MAX)
		return -EBUSY;
	s->shared = map(TLS_IMAGE_MAX, MAP_SHARED);
	if (!s->shared)
		return -ENOMEM;
	s->asked_usec = now_usec();
	snprintf(what, sizeof(what), "keys %.10s", s->name);
	r = child_start(m->event, &(struct child_spec){
				.what = what, .run = reader_main, .arg = s,
				.sandbox = m->sandbox, .role = SANDBOX_READ,
				.limit_usec = s->image ? REREAD_LIMIT_USEC
						       : s->keys->connect_timeout_usec,
				.alive = &m->n_tls_readers },
			on_answer, s, &s->reader);
	if (r < 0)
		s->shared = unmap(s->shared, TLS_IMAGE_MAX);
	return r;
}

int tls_secrets_ready(struct tls_secrets *s, const struct device_keys *keys,
		      const struct target *target)
{
	int r = 0;

	if (!s->reader && s->image && now_usec() - s->read_usec < FRESH_USEC)
		return 0;
	s->keys = keys;
	s->target = target;
	if (!s->reader)
		r = start_reader(s);
	s->keys = NULL;
	s->target = NULL;
	if (s->image && (r < 0 || now_usec() - s->asked_usec >= PATIENCE_USEC))
		return 0;
	if (r >= 0 && s->image && !s->patience)
		r = sd_event_add_time_relative(s->manager->event, &s->patience,
					       CLOCK_MONOTONIC, PATIENCE_USEC, USEC_PER_MSEC,
					       on_patience, s);
	if (r < 0)
		return r == -EAGAIN ? -EBUSY : r;
	s->awaited = true;
	return -EAGAIN;
}

int tls_secrets_new(struct manager *m, const char *name, tls_secrets_done_fn done,
		    void *userdata, struct tls_secrets **ret)
{
	struct tls_secrets *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->manager = m;
	s->done = done;
	s->userdata = userdata;
	snprintf(s->name, sizeof(s->name), "%s", name);
	*ret = s;
	return 0;
}

void tls_secrets_set_done(struct tls_secrets *s, tls_secrets_done_fn done)
{
	s->done = done;
}

struct tls_secrets *tls_secrets_free(struct tls_secrets *s)
{
	if (!s)
		return NULL;
	child_cancel(s->reader);
	sd_event_source_disable_unref(s->patience);
	unmap(s->shared, TLS_IMAGE_MAX);
	unmap(s->image, s->size);
	free(s);
	return NULL;
}

bool tls_secrets_known(const struct tls_secrets *s)
{
	return s && s->image;
}

const char *tls_secrets_problem(const struct tls_secrets *s)
{
	return s ? s->problem : "";
}

const struct tls_image *tls_secrets_image(const struct tls_secrets *s, size_t *ret_size)
{
	*ret_size = s && s->image ? s->size : 0;
	return *ret_size ? s->image : NULL;
}
