#include "lib/io/resolve.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include "lib/io/dial.h"
#include "lib/util/cleanup.h"

/* The next entry from A on whose family is, or is not, that of the first one. */
static const struct addrinfo *next_of(const struct addrinfo *a, int family, bool same)
{
	while (a && (a->ai_family == family) != same)
		a = a->ai_next;
	return a;
}

static size_t interleave(const struct addrinfo *list, struct nbdd_address *out)
{
	int family = list->ai_family;
	const struct addrinfo *lane[2] = { list, next_of(list, family, false) };
	size_t n = 0;

	for (unsigned turn = 0; (lane[0] || lane[1]) && n < DIAL_ADDRESSES_MAX; turn ^= 1) {
		const struct addrinfo *a = lane[turn];

		if (!a)
			continue;
		lane[turn] = next_of(a->ai_next, family, turn == 0);
		out[n].len = a->ai_addrlen;
		memcpy(&out[n++].addr, a->ai_addr, a->ai_addrlen);
	}
	return n;
}

int resolve(const char *host, const char *port, struct nbdd_address **ret, size_t *ret_n)
{
	struct addrinfo hints = { .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
	_cleanup_addrinfo_ struct addrinfo *list = NULL;
	struct nbdd_address *out;
	int r;

	r = getaddrinfo(host, port, &hints, &list);
	if (r != 0)
		return r;
	if (!list)
		return EAI_NONAME;
	out = calloc(DIAL_ADDRESSES_MAX, sizeof(*out));
	if (!out)
		return EAI_MEMORY;
	*ret_n = interleave(list, out);
	*ret = out;
	return 0;
}

int unix_address(const char *path, struct nbdd_address *ret)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	size_t len = strlen(path);

	if (!len)
		return -EINVAL;
	if (len >= sizeof(a.sun_path))
		return -ENAMETOOLONG;
	memcpy(a.sun_path, path, len);
	ret->len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len + 1);
	memcpy(&ret->addr, &a, sizeof(a));
	return 0;
}
