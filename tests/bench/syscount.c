/* syscount: count the system calls for I/O and waiting that a program makes through libc.
 *
 *	LD_PRELOAD=build/bench/syscount.so nbdbench …
 *
 * Also the _chk forms that fortified callers use.  For programs of one thread. */
#include <dlfcn.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

static unsigned long total;

__attribute__((visibility("default"))) unsigned long syscount_total(void);

unsigned long syscount_total(void)
{
	return total;
}

/* The functions of libc that a wrapper calls, found once at the start. */
#define COUNTED(result, name, parameters, arguments)					\
	static result (*real_##name) parameters;					\
	static __attribute__((constructor)) void find_##name(void)			\
	{										\
		real_##name = (result (*) parameters)dlsym(RTLD_NEXT, #name);		\
	}										\
	__attribute__((visibility("default"))) result name parameters;			\
	result name parameters								\
	{										\
		total++;								\
		return real_##name arguments;						\
	}

COUNTED(ssize_t, read, (int fd, void *p, size_t n), (fd, p, n))
COUNTED(ssize_t, write, (int fd, const void *p, size_t n), (fd, p, n))
COUNTED(ssize_t, readv, (int fd, const struct iovec *v, int n), (fd, v, n))
COUNTED(ssize_t, writev, (int fd, const struct iovec *v, int n), (fd, v, n))
COUNTED(ssize_t, recv, (int fd, void *p, size_t n, int f), (fd, p, n, f))
COUNTED(ssize_t, send, (int fd, const void *p, size_t n, int f), (fd, p, n, f))
COUNTED(ssize_t, recvfrom, (int fd, void *p, size_t n, int f, struct sockaddr *a,
			    socklen_t *l), (fd, p, n, f, a, l))
COUNTED(ssize_t, sendto, (int fd, const void *p, size_t n, int f, const struct sockaddr *a,
			  socklen_t l), (fd, p, n, f, a, l))
COUNTED(ssize_t, recvmsg, (int fd, struct msghdr *m, int f), (fd, m, f))
COUNTED(ssize_t, sendmsg, (int fd, const struct msghdr *m, int f), (fd, m, f))
COUNTED(int, poll, (struct pollfd *p, nfds_t n, int t), (p, n, t))
COUNTED(int, ppoll, (struct pollfd *p, nfds_t n, const struct timespec *t,
		     const sigset_t *s), (p, n, t, s))
COUNTED(int, epoll_wait, (int fd, struct epoll_event *e, int n, int t), (fd, e, n, t))
COUNTED(int, epoll_pwait, (int fd, struct epoll_event *e, int n, int t, const sigset_t *s),
	(fd, e, n, t, s))
COUNTED(int, epoll_ctl, (int fd, int op, int at, struct epoll_event *e), (fd, op, at, e))
COUNTED(ssize_t, __read_chk, (int fd, void *p, size_t n, size_t have), (fd, p, n, have))
COUNTED(ssize_t, __recv_chk, (int fd, void *p, size_t n, size_t have, int f),
	(fd, p, n, have, f))
COUNTED(int, __poll_chk, (struct pollfd *p, nfds_t n, int t, size_t have), (p, n, t, have))
COUNTED(int, __ppoll_chk, (struct pollfd *p, nfds_t n, const struct timespec *t,
			   const sigset_t *s, size_t have), (p, n, t, s, have))
