#include "daemon/errand.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "daemon/log.h"
#include "daemon/manager.h"
#include "daemon/move.h"
#include "daemon/transitions.h"
#include "lib/util/cleanup.h"
#include "lib/util/clock.h"
#include "netlink/nbdk.h"

#define SETTINGS_LIMIT_USEC	(10 * USEC_PER_SEC)
#define READ_LIMIT_USEC		(60 * USEC_PER_SEC)
#define FLUSH_LIMIT_USEC	(60 * USEC_PER_SEC)
#define CLAIM_LIMIT_USEC	(10 * USEC_PER_SEC)
#define CLOSE_LIMIT_USEC	(10 * USEC_PER_SEC)
#define DIGESTS_LIMIT_USEC	(20 * USEC_PER_SEC)
#define HASTEN_LIMIT_USEC	(20 * USEC_PER_SEC)	/* then an unforced move fails */
#define FORCED_LIMIT_USEC	(10 * USEC_PER_SEC)
#define MOVED_LIMIT_USEC	(15 * USEC_PER_SEC)
#define COUNTS_LIMIT_USEC	(10 * USEC_PER_SEC)

#define TUNING_MAX	32	/* d->tuning of all: they may be taken over at once */

#define KERNEL_INTERVAL_USEC	(30 * USEC_PER_SEC)	/* what the driver sets itself */

/* How soon the kernel is to look for requests in flight when the link is replaced; the block
 * layer adds up to 1.3 s (blk_round_jiffies), and only to a timer that is not running yet.
 * Each look at a request that takes longer is a line in the kernel's log.  Where it also costs
 * the connection, it is done for quick servers only. */
#define HASTE_USEC		(20 * USEC_PER_MSEC)
#define HASTE_MAX_USEC		(40 * USEC_PER_MSEC)
#define HASTE_STRICT_USEC	(150 * USEC_PER_MSEC)
#define QUICK_USEC		(50 * USEC_PER_MSEC)
/* By then no request is in flight that still has the interval from before. */
#define HASTE_PAUSE_USEC	(300 * USEC_PER_MSEC)

/* A request bigger than the kernel's own default is never made smaller by us; one bigger
 * than the server takes would fail. */
#define KERNEL_REQUEST_MAX	(32u << 20)

struct errand {
	struct device *device;
	struct errand **slot;		/* where it is kept */
	struct child *child;
	errand_done_fn done;
	int (*run)(const struct device *d, struct errand_result *ret);
};
_Static_assert(sizeof(struct errand_result) <= CHILD_MESSAGE_MAX, "must fit one message");

static void errand_main(int sock, int kept, void *arg)
{
	const struct errand *e = arg;
	struct errand_result result = {};

	result.error = e->run(e->device, &result);
	fd_send(sock, &result, sizeof(result), NULL, 0);
}

static void on_answer(const struct child_answer *answer, void *userdata)
{
	const struct errand_result *r = answer->data;
	struct errand_result failed = { .error = answer->error };
	struct errand *e = userdata;
	errand_done_fn done = e->done;
	struct device *d = e->device;

	fd_close(answer->fd);
	if (!answer->error && (answer->len != sizeof(*r) ||
			       r->digests.n > SAMPLES_MAX))
		failed.error = -EPROTO;
	*e->slot = NULL;
	free(e);
	done(d, failed.error ? &failed : r);
}

static int start(struct device *d, struct errand **slot, const char *verb,
		 uint64_t limit_usec,
		 int (*run)(const struct device *d, struct errand_result *ret),
		 errand_done_fn done)
{
	struct errand *e;
	char what[16];
	int r;

	if (*slot)
		return -EBUSY;
	e = calloc(1, sizeof(*e));
	if (!e)
		return -ENOMEM;
	*e = (struct errand){ .device = d, .slot = slot, .done = done, .run = run };
	snprintf(what, sizeof(what), "%s nbd%d", verb, d->index);
	r = child_start(d->manager->event, &(struct child_spec){
				.what = what, .run = errand_main, .arg = e,
				.sandbox = d->manager->sandbox, .role = SANDBOX_ERRAND,
				.limit_usec = limit_usec },
			on_answer, e, &e->child);
	if (r < 0)
		free(e);
	else
		*slot = e;
	return r;
}

struct errand *errand_cancel(struct errand *e)
{
	if (e) {
		child_cancel(e->child);
		free(e);
	}
	return NULL;
}

/* kernel-nbd: requests in flight when a link dies are requeued by the block layer's timer
 * alone, which with TIMEOUT=0 and one connection only looks and re-arms. */
static uint64_t interval_msec(const struct device *d)
{
	if (d->keys.timeout_usec)
		return d->keys.timeout_usec / USEC_PER_MSEC;
	return (d->requeue_usec ? d->requeue_usec : KERNEL_INTERVAL_USEC) / USEC_PER_MSEC;
}

static int set_queue(const struct device *d, struct errand_result *ret)
{
	unsigned index = (unsigned)d->index;
	uint32_t payload = d->info.payload_maximum;
	uint64_t now;
	int r = 0;

	if (nbdk_queue_get(index, "io_timeout", &now) < 0 || now != interval_msec(d))
		r = nbdk_queue_set(index, "io_timeout", interval_msec(d));
	if (r >= 0 && payload && payload < KERNEL_REQUEST_MAX &&
	    nbdk_queue_get(index, "max_sectors_kb", &now) == 0 && payload / 1024 < now)
		r = nbdk_queue_set(index, "max_sectors_kb", payload / 1024);
	return r;
}

static int open_device(const struct device *d, int flags)
{
	char path[32];
	int fd;

	snprintf(path, sizeof(path), "/dev/nbd%d", d->index);
	fd = open(path, flags | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static int read_block(const struct device *d, struct errand_result *ret)
{
	_cleanup_close_ int fd = open_device(d, O_RDONLY | O_DIRECT);
	void *block = mmap(NULL, d->block_size, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (fd < 0)
		return fd;
	if (block == MAP_FAILED || pread(fd, block, d->block_size, 0) < 0)
		return -errno;
	return 0;
}

static int flush_device(const struct device *d, struct errand_result *ret)
{
	_cleanup_close_ int fd = open_device(d, O_RDONLY);

	if (fd < 0)
		return fd;
	return fsync(fd) < 0 ? -errno : 0;
}

static int read_sample(void *buf, const struct sample *s, void *arg)
{
	ssize_t n = pread(*(int *)arg, buf, s->len, (off_t)s->offset);

	return n < 0 ? -errno : n == (ssize_t)s->len ? 0 : -EIO;
}

/* The other server must see what this one has acknowledged: so the flush. */
static int digest_device(const struct device *d, struct errand_result *ret)
{
	_cleanup_close_ int fd = open_device(d, O_RDONLY | O_DIRECT);

	if (fd < 0)
		return fd;
	if (fsync(fd) < 0)
		return -errno;
	return samples_digest(&d->move->samples, read_sample, &fd, &ret->digests);
}

/* Twice: the first one has all the work, the second tells how quick the server is. */
static int hasten(const struct device *d, struct errand_result *ret)
{
	bool strict = d->n_links > 1 || d->keys.timeout_usec;
	uint64_t since, slowest, usec, now;
	int r = flush_device(d, ret);

	since = now_usec();
	if (r >= 0)
		r = flush_device(d, ret);
	if (r < 0)
		return r;
	slowest = MAX(now_usec() - since, d->move->theirs.slowest_usec);
	usec = MAX(2 * slowest, HASTE_USEC);
	usec = strict ? HASTE_STRICT_USEC : MIN(usec, HASTE_MAX_USEC);
	if (nbdk_queue_get((unsigned)d->index, "io_timeout", &now) == 0 &&
	    now * USEC_PER_MSEC <= usec)
		return 0;
	ret->unhurried = strict && slowest > QUICK_USEC;
	if (!ret->unhurried) {
		r = nbdk_queue_set((unsigned)d->index, "io_timeout", usec / USEC_PER_MSEC);
		usleep(HASTE_PAUSE_USEC);
	}
	return r;
}

static int read_counts(const struct device *d, struct errand_result *ret)
{
	uint64_t counted;
	int r = nbdk_queue_get((unsigned)d->index, "iostats", &counted);

	return r < 0 ? r : counted ? 0 : -ENODATA;
}

/* Of a flush that is under way the count of requests in flight may say nothing; but they come one
 * after the other, so that none of before is left once this one has been answered, whatever the
 * answer is. */
static int flush_and_read(const struct device *d, struct errand_result *ret)
{
	int r = read_counts(d, ret);

	if (r < 0)
		return r;
	(void)flush_device(d, ret);
	return read_block(d, ret);
}

/* Nobody has it open for sure, as far as that can be seen without opening it: the first open
 * would read, and wait for the server. */
static bool is_unused(const struct device *d)
{
	return device_links_alive(d) == 0 && d->io_before != UINT64_MAX &&
		nbdk_never_opened((unsigned)d->index, d->io_before);
}

/* block(9): a partition that is claimed claims the whole; an open that does not ask for a
 * claim is not seen. */
static int claim_device(const struct device *d, struct errand_result *ret)
{
	_cleanup_close_ int fd = -1;

	if (is_unused(d))
		return 0;
	fd = open_device(d, O_RDONLY | O_EXCL);
	return fd < 0 ? fd : 0;
}

static int close_device(const struct device *d, struct errand_result *ret)
{
	_cleanup_close_ int fd = -1;

	ret->unused = is_unused(d);
	if (ret->unused)
		return 0;
	fd = open_device(d, O_RDONLY);
	return fd < 0 ? fd : 0;
}

int errand_settings(struct device *d, struct errand **slot, errand_done_fn done)
{
	int r = start(d, slot, "queue", SETTINGS_LIMIT_USEC, set_queue, done);

	d->settings_due = r < 0;
	return r;
}

static size_t tuning_room(const struct manager *m)
{
	size_t n = 0;

	for (size_t i = 0; i < m->n_devices; i++)
		n += m->devices[i]->tuning != NULL;
	return TUNING_MAX - MIN(n, (size_t)TUNING_MAX);
}

/* The next in the list that wait for their turn; one that has failed, and comes before, waits
 * for its next connection. */
static void go_on_after(const struct device *d)
{
	struct manager *m = d->manager;
	size_t i = 0, room = tuning_room(m);

	while (i < m->n_devices && m->devices[i] != d)
		i++;
	while (room && ++i < m->n_devices) {
		struct device *next = m->devices[i];

		if (!next->settings_due || next->tuning)
			continue;
		links_restore(next);
		room -= next->tuning != NULL;
	}
}

void errand_settings_made(struct device *d, const struct errand_result *result)
{
	bool again = d->settings_due;

	if (result->error < 0) {
		d->settings_due = true;
		device_log(d, LOG_WARNING, "cannot set up the device's queue: %s",
			   strerror(-result->error));
	}
	if (again)
		links_restore(d);
}

static void on_settings(struct device *d, const struct errand_result *result)
{
	errand_settings_made(d, result);
	go_on_after(d);
}

static bool sets_queue(const struct errand *e)
{
	return e && e->run == set_queue;
}

/* Not beside one that is at work, and may write what was wanted before after it. */
void errand_settings_due(struct device *d)
{
	if (d->settings_due && !d->tuning && !sets_queue(d->errand) && device_links_alive(d) &&
	    tuning_room(d->manager) && errand_settings(d, &d->tuning, on_settings) < 0)
		device_log(d, LOG_WARNING, "cannot set up the device's queue now");
}

int errand_first_read(struct device *d, struct errand **slot, errand_done_fn done)
{
	return start(d, slot, "read", d->state == STATE_MOVING ? MOVED_LIMIT_USEC
							       : READ_LIMIT_USEC,
		     read_block, done);
}

int errand_before_growing(struct device *d, errand_done_fn done)
{
	return start(d, &d->errand, "read", READ_LIMIT_USEC, flush_and_read, done);
}

int errand_flush(struct device *d, errand_done_fn done)
{
	return start(d, &d->errand, "flush", FLUSH_LIMIT_USEC, flush_device, done);
}

int errand_digests(struct device *d, struct errand **slot, errand_done_fn done)
{
	return start(d, slot, "sample", DIGESTS_LIMIT_USEC, digest_device, done);
}

int errand_hasten(struct device *d, struct errand **slot, errand_done_fn done)
{
	return start(d, slot, "flush", d->move->force ? FORCED_LIMIT_USEC : HASTEN_LIMIT_USEC,
		     hasten, done);
}

int errand_counts(struct device *d, struct errand **slot, errand_done_fn done)
{
	return start(d, slot, "count", COUNTS_LIMIT_USEC, read_counts, done);
}

int errand_claim(struct device *d, errand_done_fn done)
{
	return start(d, &d->claim, "claim", CLAIM_LIMIT_USEC, claim_device, done);
}

int errand_close(struct device *d, errand_done_fn done)
{
	return start(d, &d->errand, "close", CLOSE_LIMIT_USEC, close_device, done);
}
