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

/* Connections that are made at once: what becomes of each is in its place of `fds`, and -EAGAIN
 * while nothing has. */
struct dials {
	struct dial *dials[DIAL_SEVERAL_MAX];
	int *fds;
	size_t n, connected;
	struct pollfd polled[DIAL_SEVERAL_MAX * DIAL_ATTEMPTS_MAX];	/* of each that goes on */
};

/* Whether any goes on. */
static bool step_all(struct dials *all)
{
	const struct pollfd *ready = all->polled;
	bool going = false;
	int family;

	for (size_t i = 0; i < all->n; i++) {
		int *fd = &all->fds[i];
		size_t n = all->dials[i] ? all->dials[i]->n_attempts : 0;

		if (*fd != -EAGAIN)
			continue;
		*fd = dial_step(all->dials[i], ready, &family);
		ready += n;
		if (*fd >= 0 && fd_set_nonblock(*fd, false) < 0) {
			fd_close(*fd);
			*fd = -EINVAL;
		}
		all->connected += *fd >= 0;
		going = going || *fd == -EAGAIN;
	}
	return going;
}

/* Until one of them has something to do, or it is UNTIL_USEC. */
static int wait_all(struct dials *all, uint64_t until_usec)
{
	size_t n = 0;
	uint64_t until;

	for (size_t i = 0; i < all->n; i++)
		if (all->fds[i] == -EAGAIN) {
			n += dial_poll(all->dials[i], all->polled + n, &until);
			until_usec = MIN(until, until_usec);
		}
	/* An interrupted call leaves them as dial_poll made them: nothing is ready. */
	if (poll(all->polled, n, usec_poll_timeout(until_usec)) < 0 && errno != EINTR)
		return -errno;
	return 0;
}

static void end_all(const struct dials *all, int error)
{
	for (size_t i = 0; i < all->n; i++) {
		dial_free(all->dials[i]);
		if (all->fds[i] == -EAGAIN)
			all->fds[i] = error;
	}
}

size_t dial_several(const struct nbdd_address *addresses, size_t n, int *fds, size_t n_fds,
		    uint64_t late_usec)
{
	struct dials all = { .fds = fds, .n = n_fds };
	uint64_t until = USEC_INFINITY;
	int r = 0;

	for (size_t i = 0; i < n_fds; i++) {
		all.dials[i] = dial_new(addresses, n);
		fds[i] = all.dials[i] ? -EAGAIN : -ENOMEM;
	}
	while (step_all(&all) && r == 0) {
		if (all.connected && until == USEC_INFINITY && late_usec != USEC_INFINITY)
			until = now_usec() + late_usec;
		r = now_usec() < until ? wait_all(&all, until) : -ETIMEDOUT;
	}
	end_all(&all, r);
	return all.connected;
}

int dial_blocking(const struct nbdd_address *addresses, size_t n)
{
	int fd;

	(void)!dial_several(addresses, n, &fd, 1, USEC_INFINITY);
	return fd;
}
