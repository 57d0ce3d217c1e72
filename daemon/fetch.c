#include "daemon/fetch.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "daemon/child.h"
#include "daemon/manager.h"
#include "daemon/report.h"
#include "lib/util/clock.h"
#include "lib/util/fd.h"

#define FETCH_LIMIT_USEC (15 * USEC_PER_SEC)
#define ERRNO_MAX 4095

/* A file as the child has found it. */
struct copy {
	uint32_t reading, error, len;
	char bytes[CONF_FILE_MAX];
};

/* Both, in memory that is the child's and ours. */
struct copies {
	struct copy nbdd_conf, nbdtab;
};

struct waiter {
	conf_fetched_fn done;
	void *userdata;
	struct waiter *next;
};

struct fetch {
	struct manager *manager;
	struct child *child;		/* NULL: none reads */
	struct copies *copies;		/* NULL unless it does */
	/* For whom it reads; and who came when it had begun, for the next one. */
	struct waiter *now, *later;
	unsigned alive;			/* processes, */
	bool hung;			/* of which one has, and may still do so */
};

/* ---- in the child ------------------------------------------------------------------ */

static int read_copy(const char *file, struct copy *c)
{
	struct conf_text t = CONF_TEXT_NULL(file);
	int r = conf_text_read(&t);

	if (r < 0)
		return r;
	c->reading = t.reading;
	c->error = (uint32_t)t.error;
	if (t.reading == CONF_TEXT) {
		c->len = (uint32_t)t.bytes.len;
		memcpy(c->bytes, t.bytes.data, t.bytes.len);
	}
	conf_text_clear(&t);
	return 0;
}

static void fetch_main(int sock, int kept, void *arg)
{
	const struct fetch *f = arg;
	int r = read_copy(f->manager->options.config, &f->copies->nbdd_conf);

	if (r == 0)
		r = read_copy(f->manager->options.nbdtab, &f->copies->nbdtab);
	fd_send(sock, &r, sizeof(r), NULL, 0);
}

/* ---- what has been read ------------------------------------------------------------ */

static int take_copy(const struct copy *c, const char *file, struct conf_text *t)
{
	uint32_t reading = c->reading, error = c->error, len = c->len;

	*t = CONF_TEXT_NULL(file);
	if (reading >= N_CONF_READINGS || error > ERRNO_MAX || len > CONF_FILE_MAX)
		return -EPROTO;
	t->reading = reading;
	t->error = (int)error;
	return buffer_append(&t->bytes, c->bytes, len);
}

static int parse(const struct fetch *f, struct conf **ret)
{
	const struct manager_options *o = &f->manager->options;
	struct conf_text nbdd_conf, nbdtab = CONF_TEXT_NULL(NULL);
	int r = take_copy(&f->copies->nbdd_conf, o->config, &nbdd_conf);

	if (r == 0)
		r = take_copy(&f->copies->nbdtab, o->nbdtab, &nbdtab);
	if (r == 0)
		r = conf_parse(&nbdd_conf, &nbdtab, ret);
	conf_text_clear(&nbdd_conf);
	conf_text_clear(&nbdtab);
	return r;
}

/* Each gets his own. */
static void tell(struct fetch *f, int r, struct waiter *w)
{
	while (w) {
		struct waiter *next = w->next;
		struct conf *fresh = NULL;
		int e = r < 0 ? r : parse(f, &fresh);

		w->done(f->manager, e, fresh, w->userdata);
		free(w);
		w = next;
	}
}

static void drop_copies(struct fetch *f)
{
	if (f->copies)
		munmap(f->copies, sizeof(*f->copies));
	f->copies = NULL;
}

static int start(struct fetch *f);

/* Those who have come meanwhile, or whom those bring who are told. */
static void go_on(struct fetch *f)
{
	int r = f->later ? start(f) : 0;

	if (r < 0) {
		struct waiter *w = f->later;

		f->later = NULL;
		tell(f, r, w);
	}
}

static void on_read(const struct child_answer *answer, void *userdata)
{
	struct fetch *f = userdata;
	struct waiter *w = f->now;
	int r = answer->error;

	fd_close(answer->fd);
	if (r == 0)
		r = answer->len == sizeof(r) ? *(const int *)answer->data : -EPROTO;
	f->hung = r == -ETIMEDOUT;
	f->now = NULL;
	tell(f, MIN(r, 0), w);
	f->child = NULL;
	drop_copies(f);
	go_on(f);
}

/* For all who wait.  One that hangs is enough. */
static int start(struct fetch *f)
{
	struct manager *m = f->manager;
	int r;

	if (f->hung && f->alive)
		return -ETIMEDOUT;
	f->copies = mmap(NULL, sizeof(*f->copies), PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (f->copies == MAP_FAILED) {
		f->copies = NULL;
		return -ENOMEM;
	}
	r = child_start(m->event, &(struct child_spec){
				.what = "configuration", .run = fetch_main, .arg = f,
				.sandbox = m->sandbox, .role = SANDBOX_READ,
				.limit_usec = FETCH_LIMIT_USEC, .alive = &f->alive },
			on_read, f, &f->child);
	if (r < 0) {
		drop_copies(f);
		return r;
	}
	f->now = f->later;
	f->later = NULL;
	return 0;
}

/* ---- the door ---------------------------------------------------------------------- */

/* What an earlier nbdd has left alone is a device, too. */
static bool has_devices(const struct manager *m)
{
	return m->n_devices || (m->reports && m->reports->n);
}

static int ask(struct manager *m, conf_fetched_fn done, void *userdata)
{
	struct waiter *w = malloc(sizeof(*w)), **end;
	struct fetch *f = m->fetch;

	if (!f)
		f = m->fetch = calloc(1, sizeof(*f));
	if (!f || !w) {
		free(w);
		return -ENOMEM;
	}
	f->manager = m;
	*w = (struct waiter){ done, userdata };
	for (end = &f->later; *end; end = &(*end)->next)
		;
	*end = w;
	if (!f->child)
		go_on(f);
	return 0;
}

void conf_fetch(struct manager *m, conf_fetched_fn done, void *userdata)
{
	struct conf *fresh = NULL;
	int r;

	if (has_devices(m)) {
		r = ask(m, done, userdata);
		if (r < 0)
			done(m, r, NULL, userdata);
		return;
	}
	r = conf_read(m->options.config, m->options.nbdtab, &fresh);
	done(m, r, fresh, userdata);
}

const char *conf_fetch_strerror(int r)
{
	return r == -ETIMEDOUT ? "a device without its server, or whose server hangs, may hold it"
	       : r == -ECANCELED ? "nbdd is ending" : child_strerror(r);
}

void conf_fetch_free(struct manager *m)
{
	struct fetch *f = m->fetch;

	if (!f)
		return;
	child_cancel(f->child);
	tell(f, -ECANCELED, f->now);
	tell(f, -ECANCELED, f->later);
	drop_copies(f);
	free(f);
	m->fetch = NULL;
}
