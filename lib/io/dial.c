#include "lib/io/dial.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "lib/util/fd.h"

struct dial {
	size_t n, next;			/* addresses, the first not tried yet */
	struct attempt {
		int fd, family;
	} attempts[DIAL_ATTEMPTS_MAX];	/* under way */
	size_t n_attempts;
	uint64_t next_usec;		/* when the next attempt begins */
	unsigned busy;			/* tries that met a full backlog */
	int error;			/* of the last attempt that failed */
	int epoll_fd, timer_fd;		/* made when a caller polls by himself */
	struct nbdd_address addresses[];
};

struct dial *dial_new(const struct nbdd_address *addresses, size_t n)
{
	struct dial *d = calloc(1, sizeof(*d) + n * sizeof(*addresses));

	if (!d)
		return NULL;
	memcpy(d->addresses, addresses, n * sizeof(*addresses));
	d->n = n;
	d->error = EADDRNOTAVAIL;
	d->epoll_fd = d->timer_fd = -1;
	return d;
}

void dial_free(struct dial *d)
{
	if (!d)
		return;
	for (size_t i = 0; i < d->n_attempts; i++)
		close(d->attempts[i].fd);
	fd_close(d->epoll_fd);
	fd_close(d->timer_fd);
	free(d);
}

/* The timer says when the next attempt is due; never, once all have begun. */
static int arm_timer(struct dial *d)
{
	bool due = d->next < d->n && d->n_attempts < DIAL_ATTEMPTS_MAX;
	struct itimerspec t = {};

	if (d->timer_fd < 0)
		return 0;
	if (due) {
		t.it_value.tv_sec = (time_t)(d->next_usec / USEC_PER_SEC);
		t.it_value.tv_nsec = (long)(d->next_usec % USEC_PER_SEC) * 1000 + 1;
	}
	return timerfd_settime(d->timer_fd, TFD_TIMER_ABSTIME, &t, NULL) < 0 ? -errno : 0;
}

static int watch(struct dial *d, int fd, uint32_t events)
{
	struct epoll_event e = { .events = events, .data.fd = fd };

	return epoll_ctl(d->epoll_fd, EPOLL_CTL_ADD, fd, &e) < 0 ? -errno : 0;
}

/* One attempt: the descriptor when it connected at once, -EAGAIN when it goes on, else
 * -errno. */
static int attempt(struct dial *d, const struct nbdd_address *a)
{
	int fd, r;

	fd = socket(a->addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	if (connect(fd, (const struct sockaddr *)&a->addr, a->len) == 0)
		return fd;
	r = -errno;
	if (r == -EAGAIN && a->addr.ss_family == AF_UNIX)
		r = -EBUSY;
	if (r == -EINPROGRESS) {
		r = d->epoll_fd < 0 ? 0 : watch(d, fd, EPOLLOUT);
		if (r == 0) {
			d->attempts[d->n_attempts++] = (struct attempt) {
				fd, a->addr.ss_family };
			return -EAGAIN;
		}
	}
	fd_close(fd);
	return r;
}

/* Begin attempts until one is under way. */
static int begin(struct dial *d, int *ret_family)
{
	while (d->next < d->n && d->n_attempts < DIAL_ATTEMPTS_MAX) {
		const struct nbdd_address *a = &d->addresses[d->next];
		int r = attempt(d, a);

		if (r >= 0) {
			*ret_family = a->addr.ss_family;
			return r;
		}
		if (r == -EBUSY && d->busy++ < DIAL_BUSY_TRIES) {
			d->next_usec = now_usec() + DIAL_BUSY_USEC;
			return -EAGAIN;
		}
		d->next++;
		if (r == -EAGAIN) {
			d->next_usec = now_usec() + DIAL_STAGGER_USEC;
			return r;
		}
		/* Not EAGAIN, which here means that attempts go on. */
		d->error = r == -EBUSY ? ETIMEDOUT : -r;
	}
	return d->n_attempts ? -EAGAIN : -d->error;
}

/* Take attempts that came to an end: a connected descriptor (0 is one, too), or -EAGAIN;
 * *RET_FAILED when one failed. */
static int collect(struct dial *d, const struct pollfd *ready, int *ret_family,
		   bool *ret_failed)
{
	struct pollfd fds[DIAL_ATTEMPTS_MAX];
	uint64_t until;

	if (!ready) {
		if (!dial_poll(d, fds, &until) || poll(fds, d->n_attempts, 0) <= 0)
			return -EAGAIN;
		ready = fds;
	}
	for (size_t i = d->n_attempts; i-- > 0;) {
		struct attempt a = d->attempts[i];
		int error = 0;
		socklen_t len = sizeof(error);

		if (!ready[i].revents)
			continue;
		d->attempts[i] = d->attempts[--d->n_attempts];
		if (getsockopt(a.fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0)
			error = errno;
		if (!error) {
			*ret_family = a.family;
			return a.fd;
		}
		d->error = error;
		fd_close(a.fd);
		*ret_failed = true;
	}
	return -EAGAIN;
}

int dial_step(struct dial *d, const struct pollfd *ready, int *ret_family)
{
	bool failed = false;
	int r = collect(d, ready, ret_family, &failed);

	if (r >= 0)
		return r;
	if (failed || now_usec() >= d->next_usec)
		r = begin(d, ret_family);
	if (r == -EAGAIN) {
		int e = arm_timer(d);

		return e < 0 ? e : r;
	}
	return r;
}

size_t dial_poll(struct dial *d, struct pollfd fds[static DIAL_ATTEMPTS_MAX],
		 uint64_t *until_usec)
{
	for (size_t i = 0; i < d->n_attempts; i++)
		fds[i] = (struct pollfd) { .fd = d->attempts[i].fd, .events = POLLOUT };
	*until_usec = d->next < d->n && d->n_attempts < DIAL_ATTEMPTS_MAX ? d->next_usec
									  : USEC_INFINITY;
	return d->n_attempts;
}

/* The epoll descriptor over all attempts and the timer. */
static int make_epoll(struct dial *d)
{
	int r;

	d->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	d->timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	if (d->epoll_fd < 0 || d->timer_fd < 0)
		return -errno;
	r = watch(d, d->timer_fd, EPOLLIN);
	for (size_t i = 0; i < d->n_attempts && r == 0; i++)
		r = watch(d, d->attempts[i].fd, EPOLLOUT);
	return r < 0 ? r : arm_timer(d);
}

/* A lone attempt is its own descriptor. */
static bool is_single(const struct dial *d)
{
	return d->n == 1 && d->n_attempts == 1 && d->epoll_fd < 0;
}

short dial_events(const struct dial *d)
{
	return is_single(d) ? POLLOUT : POLLIN;
}

int dial_fd(struct dial *d)
{
	int r;

	if (is_single(d))
		return d->attempts[0].fd;
	if (d->epoll_fd < 0) {
		r = make_epoll(d);
		if (r < 0)
			return r;
	}
	return d->epoll_fd;
}

int dial_blocking(const struct nbdd_address *addresses, size_t n)
{
	struct dial *d = dial_new(addresses, n);
	struct pollfd fds[DIAL_ATTEMPTS_MAX];
	uint64_t until;
	int family, r;

	if (!d)
		return -ENOMEM;
	while ((r = dial_step(d, NULL, &family)) == -EAGAIN) {
		size_t n_fds = dial_poll(d, fds, &until);

		if (poll(fds, n_fds, usec_poll_timeout(until)) < 0 && errno != EINTR) {
			r = -errno;
			break;
		}
	}
	dial_free(d);
	if (r >= 0 && fd_set_nonblock(r, false) < 0)
		return fd_close(r), -EINVAL;
	return r;
}
