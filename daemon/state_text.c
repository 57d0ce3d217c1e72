#include "daemon/state_text.h"

#include <errno.h>
#include <gnutls/crypto.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>
#include <linux/vm_sockets.h>

#define MAGIC		"nbdd-state"
#define SUM_BYTES	32		/* SHA-256 */
#define LINE_ROOM	128

static const struct {
	sa_family_t family;
	size_t min, max;		/* bytes of an address */
} families[] = {
	{ AF_INET, sizeof(struct sockaddr_in), sizeof(struct sockaddr_in) },
	{ AF_INET6, sizeof(struct sockaddr_in6), sizeof(struct sockaddr_in6) },
	{ AF_UNIX, sizeof(sa_family_t), sizeof(struct sockaddr_un) },
	{ AF_VSOCK, sizeof(struct sockaddr_vm), sizeof(struct sockaddr_vm) },
};

void state_put_hex(char *to, const void *from, size_t len)
{
	static const char digits[] = "0123456789abcdef";
	const unsigned char *p = from;

	for (size_t i = 0; i < len; i++) {
		*to++ = digits[p[i] >> 4];
		*to++ = digits[p[i] & 15];
	}
	*to = '\0';
}

static int digit(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static int get_hex(const char *hex, size_t len, unsigned char *to)
{
	for (size_t i = 0; i < len; i++) {
		int high = digit(hex[2 * i]), low = digit(hex[2 * i + 1]);

		if (high < 0 || low < 0)
			return -EINVAL;
		to[i] = (unsigned char)(high << 4 | low);
	}
	return 0;
}

size_t state_address_len(const struct sockaddr_storage *a)
{
	for (size_t i = 0; i < ARRAY_SIZE(families); i++)
		if (families[i].family == a->ss_family)
			return families[i].max;
	return 0;
}

int state_get_address(const char *hex, struct sockaddr_storage *ret, socklen_t *ret_len)
{
	struct sockaddr_storage a = {};
	size_t len = strlen(hex);

	if (len % 2 || len / 2 < sizeof(a.ss_family) || len / 2 > sizeof(a) ||
	    get_hex(hex, len / 2, (unsigned char *)&a) < 0)
		return -EINVAL;
	for (size_t i = 0; i < ARRAY_SIZE(families); i++) {
		if (families[i].family != a.ss_family || len / 2 < families[i].min ||
		    len / 2 > families[i].max)
			continue;
		*ret = a;
		*ret_len = (socklen_t)(len / 2);
		return 0;
	}
	return -EINVAL;
}

static int checksum(const char *text, size_t len, char hex[static 2 * SUM_BYTES + 1])
{
	unsigned char sum[SUM_BYTES];

	if (gnutls_hash_fast(GNUTLS_DIG_SHA256, text, len, sum) < 0)
		return -ENOMEM;
	state_put_hex(hex, sum, sizeof(sum));
	return 0;
}

int state_seal(const char *text, size_t len, char **ret, size_t *ret_len)
{
	char sum[2 * SUM_BYTES + 1], *all;
	int line, r;

	if (len > STATE_TEXT_MAX - LINE_ROOM)
		return -E2BIG;
	r = checksum(text, len, sum);
	all = r < 0 ? NULL : malloc(LINE_ROOM + len + 2);
	if (!all)
		return -ENOMEM;
	line = snprintf(all, LINE_ROOM, MAGIC " %u %zu %s\n", STATE_VERSION, len, sum);
	memcpy(all + line, text, len);
	memcpy(all + line + len, "\n", 2);
	*ret = all;
	*ret_len = (size_t)line + len + 1;
	return 0;
}

static int fail(char error[static STATE_ERROR_MAX], int r, const char *text)
{
	snprintf(error, STATE_ERROR_MAX, "%s", text);
	return r;
}

int state_unseal(const char *text, size_t len, const char **ret, size_t *ret_len,
		 char error[static STATE_ERROR_MAX])
{
	const char *end = memchr(text, '\n', len < LINE_ROOM ? len : LINE_ROOM);
	char line[LINE_ROOM + 1], said[2 * SUM_BYTES + 1], sum[2 * SUM_BYTES + 1];
	unsigned version;
	size_t size, rest;

	if (!end)
		return fail(error, -EINVAL, "it does not begin as the state of a device does");
	memcpy(line, text, (size_t)(end - text));
	line[end - text] = '\0';
	if (sscanf(line, MAGIC " %9u ", &version) != 1)
		return fail(error, -EINVAL, "it does not begin as the state of a device does");
	if (version < STATE_VERSION_MIN || version > STATE_VERSION) {
		snprintf(error, STATE_ERROR_MAX, "its format is version %u, this nbdd "
			 "understands %u to %u", version, STATE_VERSION_MIN, STATE_VERSION);
		return -EPROTONOSUPPORT;
	}
	rest = len - (size_t)(end + 1 - text);
	if (sscanf(line, MAGIC " %*u %7zu %64s", &size, said) != 2 || size > rest)
		return fail(error, -EINVAL, "it is cut off");
	if (checksum(end + 1, size, sum) < 0)
		return fail(error, -ENOMEM, "out of memory");
	if (strcmp(sum, said) != 0)
		return fail(error, -EINVAL, "its checksum is wrong");
	*ret = end + 1;
	*ret_len = size;
	return 0;
}
