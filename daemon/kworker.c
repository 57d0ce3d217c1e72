#include "daemon/kworker.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "lib/util/cleanup.h"
#include "lib/util/clock.h"

struct kjob_queue {
	struct kjob *head, **tail;
};

struct kworker {
	const struct nbdk_ops *ops;
	struct nbdk *k;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t wake;
	struct kjob_queue waiting, finished;
	uint64_t busy_since_usec;
	bool stop;
	int eventfd;
	sd_event_source *source;
};

static void queue_init(struct kjob_queue *q)
{
	q->head = NULL;
	q->tail = &q->head;
}

static void queue_push(struct kjob_queue *q, struct kjob *job)
{
	job->next = NULL;
	*q->tail = job;
	q->tail = &job->next;
}

static struct kjob *queue_pop(struct kjob_queue *q)
{
	struct kjob *job = q->head;

	if (!job)
		return NULL;
	q->head = job->next;
	if (!q->head)
		q->tail = &q->head;
	return job;
}

/* Wait for a job; NULL when the worker is to stop. */
static struct kjob *take_job(struct kworker *w)
{
	struct kjob *job;

	pthread_mutex_lock(&w->lock);
	while (!w->stop && !w->waiting.head)
		pthread_cond_wait(&w->wake, &w->lock);
	job = w->stop ? NULL : queue_pop(&w->waiting);
	w->busy_since_usec = job ? now_usec() : 0;
	pthread_mutex_unlock(&w->lock);
	return job;
}

static void *worker_main(void *arg)
{
	struct kworker *w = arg;
	struct kjob *job;
	uint64_t one = 1;

	while ((job = take_job(w))) {
		job->result = job->run(job, w->k, w->ops);
		pthread_mutex_lock(&w->lock);
		w->busy_since_usec = 0;
		queue_push(&w->finished, job);
		pthread_mutex_unlock(&w->lock);
		if (write(w->eventfd, &one, sizeof(one)) != sizeof(one))
			abort();	/* an eventfd takes 2^64 - 2 of them */
	}
	return NULL;
}

static int on_finished(sd_event_source *source, int fd, uint32_t revents, void *userdata)
{
	struct kworker *w = userdata;
	struct kjob *job;
	uint64_t count;

	if (read(fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
		return -errno;
	for (;;) {
		pthread_mutex_lock(&w->lock);
		job = queue_pop(&w->finished);
		pthread_mutex_unlock(&w->lock);
		if (!job)
			return 0;
		job->done(job, job->result);
	}
}

/* All signals stay with the event loop's thread. */
static int start_thread(struct kworker *w)
{
	pthread_attr_t attr;
	sigset_t all, old;
	int r;

	sigfillset(&all);
	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, KWORKER_STACK);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	r = pthread_create(&w->thread, &attr, worker_main, w);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	return -r;
}

static void kworker_destroy(struct kworker *w)
{
	sd_event_source_disable_unref(w->source);
	fd_close(w->eventfd);
	nbdk_close(w->k);
	pthread_cond_destroy(&w->wake);
	pthread_mutex_destroy(&w->lock);
	free(w);
}

/* The socket that connected devices may be needed open: it is used on. */
static int open_driver(struct kworker *w, int genl)
{
	int r = genl < 0 ? -EBADF : nbdk_open_fd(genl, &w->k);

	return r < 0 ? nbdk_open(&w->k) : r;
}

int kworker_fd(const struct kworker *w)
{
	return nbdk_fd(w->k);
}

int kworker_new(sd_event *event, const struct nbdk_ops *ops, int genl, struct kworker **ret)
{
	struct kworker *w = calloc(1, sizeof(*w));
	int r;

	if (!w)
		return -ENOMEM;
	w->ops = ops;
	queue_init(&w->waiting);
	queue_init(&w->finished);
	pthread_mutex_init(&w->lock, NULL);
	pthread_cond_init(&w->wake, NULL);
	w->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	r = w->eventfd < 0 ? -errno : open_driver(w, genl);
	if (r >= 0)
		r = sd_event_add_io(event, &w->source, w->eventfd, EPOLLIN, on_finished, w);
	if (r >= 0)
		r = start_thread(w);
	if (r < 0) {
		kworker_destroy(w);
		return r;
	}
	*ret = w;
	return 0;
}

void kworker_free(struct kworker *w)
{
	bool hangs;

	if (!w)
		return;
	pthread_mutex_lock(&w->lock);
	w->stop = true;
	hangs = w->busy_since_usec != 0;
	pthread_cond_signal(&w->wake);
	pthread_mutex_unlock(&w->lock);
	if (hangs)
		return;
	pthread_join(w->thread, NULL);
	kworker_destroy(w);
}

void kworker_submit(struct kworker *w, struct kjob *job)
{
	pthread_mutex_lock(&w->lock);
	queue_push(&w->waiting, job);
	pthread_cond_signal(&w->wake);
	pthread_mutex_unlock(&w->lock);
}

uint64_t kworker_busy_since(struct kworker *w)
{
	uint64_t since;

	pthread_mutex_lock(&w->lock);
	since = w->busy_since_usec;
	pthread_mutex_unlock(&w->lock);
	return since;
}

bool kworker_idle(struct kworker *w)
{
	bool idle;

	pthread_mutex_lock(&w->lock);
	idle = !w->busy_since_usec && !w->waiting.head && !w->finished.head;
	pthread_mutex_unlock(&w->lock);
	return idle;
}
