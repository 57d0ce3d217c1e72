/* Preloaded: a kernel whose TLS can send and not receive. */
#include <dlfcn.h>
#include <errno.h>
#include <linux/tls.h>
#include <sys/socket.h>

#ifndef SOL_TLS
#define SOL_TLS 282
#endif

int __attribute__((visibility("default")))
setsockopt(int fd, int level, int option, const void *value, socklen_t len)
{
	int (*next)(int, int, int, const void *, socklen_t) = dlsym(RTLD_NEXT, "setsockopt");

	if (level == SOL_TLS && option == TLS_RX) {
		errno = EOPNOTSUPP;
		return -1;
	}
	return next(fd, level, option, value, len);
}
