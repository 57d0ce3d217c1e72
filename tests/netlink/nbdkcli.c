/* nbdkcli VERB [KEY=VALUE ...]: the calls of netlink/ one by one, for tests.
 *
 * Prints what the call returns and exits 0; or prints `ERRNO: sentence` and exits 1.
 * SOCKET is unix:PATH or tcp:PORT, a server that speaks oldstyle (its hello is all of the
 * negotiation, see the NBD protocol document), or one of the odd kinds in the table. */
#include <arpa/inet.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "lib/util/macro.h"
#include "lib/util/units.h"
#include "netlink/nbdk.h"

#define HOLDERS_MAX 16
/* HAS_FLAGS, READ_ONLY, CAN_MULTI_CONN: nbdkit 1.32 refuses the commands that its other
 * flags offer when it speaks oldstyle. */
#define OLDSTYLE_FLAGS 0x103

struct args {
	uint64_t index, size, block, flags, timeout, dead, value, max;
	const char *id, *name, *path;
	int sockets[NBDK_SOCKETS_MAX + 1];
	size_t n_sockets;
};

struct oldstyle_hello {
	uint64_t magic, version, size;
	uint32_t flags;
	uint8_t zeroes[124];
} __attribute__((packed));

static _noreturn_ void die(const char *what)
{
	perror(what);
	exit(2);
}

/* ---- memory: a daemon under the root file system may not ask for any ------------------ */

static size_t allocations;

#ifndef __SANITIZE_ADDRESS__
extern void *__libc_malloc(size_t size);
extern void *__libc_calloc(size_t n, size_t size);
extern void *__libc_realloc(void *p, size_t size);

__attribute__((visibility("default"))) void *malloc(size_t size)
{
	allocations++;
	return __libc_malloc(size);
}

__attribute__((visibility("default"))) void *calloc(size_t n, size_t size)
{
	allocations++;
	return __libc_calloc(n, size);
}

__attribute__((visibility("default"))) void *realloc(void *p, size_t size)
{
	allocations++;
	return __libc_realloc(p, size);
}
#endif

static void tell_allocations(size_t before)
{
	if (allocations != before)
		printf("allocated %zu times\n", allocations - before);
}

/* ---- sockets ----------------------------------------------------------------------- */

static int take_hello(struct args *a, int fd)
{
	struct oldstyle_hello hello;
	size_t got = 0;

	while (got < sizeof hello) {
		ssize_t n = read(fd, (char *)&hello + got, sizeof hello - got);

		if (n <= 0)
			die("oldstyle hello");
		got += (size_t)n;
	}
	if (a->size == UINT64_MAX)
		a->size = be64toh(hello.size);
	if (a->flags == UINT64_MAX)
		a->flags = be32toh(hello.flags) & OLDSTYLE_FLAGS;
	return fd;
}

static int unix_socket(struct args *a, const char *path)
{
	struct sockaddr_un to = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(to.sun_path, sizeof to.sun_path, "%s", path);
	if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0)
		die(path);
	return take_hello(a, fd);
}

static int tcp_socket(struct args *a, const char *port)
{
	struct sockaddr_in to = {
		.sin_family = AF_INET,
		.sin_port = htons((uint16_t)atoi(port)),
		.sin_addr = { htonl(INADDR_LOOPBACK) },
	};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0)
		die(port);
	return take_hello(a, fd);
}

static int pair_socket(struct args *a, const char *text)
{
	int pair[2];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, pair) < 0)
		die("socketpair");
	return pair[0];
}

static int datagram_socket(struct args *a, const char *text)
{
	return socket(AF_UNIX, SOCK_DGRAM, 0);
}

static int udp_socket(struct args *a, const char *text)
{
	return socket(AF_INET, SOCK_DGRAM, 0);
}

static int file_socket(struct args *a, const char *text)
{
	return open("/dev/null", O_RDWR);
}

static int closed_socket(struct args *a, const char *text)
{
	return 999;
}

static const struct {
	const char *prefix;
	int (*make)(struct args *a, const char *rest);
} socket_kinds[] = {
	{ "unix:", unix_socket }, { "tcp:", tcp_socket }, { "pair", pair_socket },
	{ "datagram", datagram_socket }, { "udp", udp_socket }, { "file", file_socket },
	{ "closed", closed_socket },
};

static void add_socket(struct args *a, const char *text)
{
	for (size_t i = 0; i < ARRAY_SIZE(socket_kinds); i++) {
		size_t len = strlen(socket_kinds[i].prefix);

		if (strncmp(text, socket_kinds[i].prefix, len) != 0)
			continue;
		if (a->n_sockets == ARRAY_SIZE(a->sockets))
			break;
		a->sockets[a->n_sockets++] = socket_kinds[i].make(a, text + len);
		return;
	}
	errno = EINVAL;
	die(text);
}

/* ---- arguments --------------------------------------------------------------------- */

static const struct {
	const char *key;
	size_t offset;
} numbers[] = {
	{ "index", offsetof(struct args, index) }, { "size", offsetof(struct args, size) },
	{ "block", offsetof(struct args, block) }, { "flags", offsetof(struct args, flags) },
	{ "timeout", offsetof(struct args, timeout) },
	{ "dead", offsetof(struct args, dead) }, { "value", offsetof(struct args, value) },
	{ "max", offsetof(struct args, max) },
}, strings[] = {
	{ "id", offsetof(struct args, id) }, { "name", offsetof(struct args, name) },
	{ "path", offsetof(struct args, path) },
};

static void take_arg(struct args *a, char *text)
{
	char *value = strchr(text, '=');

	if (!value)
		goto bad;
	*value++ = '\0';
	if (!strcmp(text, "socket")) {
		add_socket(a, value);
		return;
	}
	for (size_t i = 0; i < ARRAY_SIZE(numbers); i++)
		if (!strcmp(text, numbers[i].key)) {
			if (parse_u64(value, (uint64_t *)((char *)a + numbers[i].offset)) < 0)
				goto bad;
			return;
		}
	for (size_t i = 0; i < ARRAY_SIZE(strings); i++)
		if (!strcmp(text, strings[i].key)) {
			*(const char **)((char *)a + strings[i].offset) = value;
			return;
		}
bad:
	errno = EINVAL;
	die(text);
}

/* ---- verbs ------------------------------------------------------------------------- */

static int fail(int r)
{
	printf("%s\n", strerrorname_np(-r));
	return 1;
}

static struct nbdk *kernel(void)
{
	struct nbdk *k;
	int r = nbdk_open(&k);

	if (r < 0)
		exit(fail(r));
	return k;
}

static int verb_open(struct args *a)
{
	nbdk_close(kernel());
	return 0;
}

static int verb_connect(struct args *a)
{
	struct nbdk_connect c = {
		.index = a->index == UINT64_MAX ? NBDK_INDEX_ANY : (int)a->index,
		.size = a->size, .block_size = (uint32_t)a->block, .server_flags = a->flags,
		.timeout_sec = a->timeout, .dead_conn_timeout_sec = a->dead,
		.identifier = a->id, .sockets = a->sockets, .n_sockets = a->n_sockets,
	};
	struct nbdk *k = kernel();
	unsigned index;
	int r = nbdk_kernel_ops.connect(k, &c, &index);

	nbdk_close(k);
	if (r < 0) {
		printf("%s: %s\n", strerrorname_np(-r), nbdk_connect_strerror(r, &c));
		return 1;
	}
	printf("%u\n", index);
	return 0;
}

static int verb_reconnect(struct args *a)
{
	struct nbdk_reconnect c = {
		.index = (unsigned)a->index, .timeout_sec = a->timeout,
		.dead_conn_timeout_sec = a->dead, .identifier = a->id,
		.sockets = a->sockets, .n_sockets = a->n_sockets,
	};
	struct nbdk *k = kernel();
	size_t before = allocations;
	int r = nbdk_kernel_ops.reconnect(k, &c);

	tell_allocations(before);
	nbdk_close(k);
	return r < 0 ? fail(r) : 0;
}

static int verb_resize(struct args *a)
{
	struct nbdk *k = kernel();
	int r = nbdk_kernel_ops.resize(k, (unsigned)a->index, a->id, a->size);

	nbdk_close(k);
	return r < 0 ? fail(r) : 0;
}

/* `max=1`: the last close disconnects. */
static int verb_last_close(struct args *a)
{
	struct nbdk *k = kernel();
	int r = nbdk_kernel_ops.last_close(k, (unsigned)a->index, a->id, a->max > 0);

	nbdk_close(k);
	return r < 0 ? fail(r) : 0;
}

static int verb_disconnect(struct args *a)
{
	struct nbdk *k = kernel();
	int r = nbdk_kernel_ops.disconnect(k, (unsigned)a->index);

	nbdk_close(k);
	return r < 0 ? fail(r) : 0;
}

static int verb_status(struct args *a)
{
	struct nbdk *k = kernel();
	bool connected;
	int r = nbdk_kernel_ops.status(k, (unsigned)a->index, &connected);

	nbdk_close(k);
	if (r < 0)
		return fail(r);
	puts(connected ? "connected" : "not connected");
	return 0;
}

static int verb_info(struct args *a)
{
	struct nbdk_info i;
	int r = nbdk_sysfs_read((unsigned)a->index, &i);

	if (r < 0)
		return fail(r);
	printf("connected=%d\npid=%d\nbackend=%s\nsize=%" PRIu64 "\nread_only=%d\n"
	       "reads=%" PRIu64 "\nread_bytes=%" PRIu64
	       "\nwrites=%" PRIu64 "\nwrite_bytes=%" PRIu64 "\nin_flight=%u\n",
	       i.connected, i.pid, i.backend, i.size, i.read_only, i.reads,
	       i.read_bytes, i.writes, i.write_bytes, i.in_flight);
	return 0;
}

static int verb_queue_set(struct args *a)
{
	int r = nbdk_queue_set((unsigned)a->index, a->name, a->value);

	return r < 0 ? fail(r) : 0;
}

static int verb_queue_get(struct args *a)
{
	uint64_t value;
	int r = nbdk_queue_get((unsigned)a->index, a->name, &value);

	if (r < 0)
		return fail(r);
	printf("%" PRIu64 "\n", value);
	return 0;
}

static int print_index(unsigned index, void *userdata)
{
	const struct args *a = userdata;

	if (index == a->max)
		return -ECANCELED;
	printf("%u\n", index);
	return 0;
}

static int verb_foreach(struct args *a)
{
	int r = nbdk_foreach(print_index, a);

	return r < 0 ? fail(r) : 0;
}

static int verb_holders(struct args *a)
{
	static const char *const kinds[] = { "mount", "swap", "device", "process" };
	struct nbdk_holder holders[HOLDERS_MAX];
	size_t n;
	int r = nbdk_holders((unsigned)a->index, holders, MIN(a->max, (uint64_t)HOLDERS_MAX), &n);

	if (r < 0)
		return fail(r);
	for (size_t i = 0; i < n; i++)
		printf("%s %s %d %s\n", kinds[holders[i].kind], holders[i].device,
		       holders[i].pid, holders[i].text);
	return 0;
}

/* Holds PATH open until killed. */
static int verb_hold(struct args *a)
{
	if (open(a->path, O_RDONLY | O_NONBLOCK) < 0)
		die(a->path);
	puts("ready");
	fflush(stdout);
	pause();
	return 0;
}

static void print_dead(unsigned index, void *userdata)
{
	printf("dead %u\n", index);
}

static void print_net(const char *what, void *userdata)
{
	printf("net %s\n", what);
}

/* Prints events until killed.  MAX: bytes of the kernel's buffer for link-dead events. */
static int verb_watch(struct args *a)
{
	struct nbdk_events *events;
	struct nbdk_net *net;
	int r, bytes = (int)a->max;

	if ((r = nbdk_events_open(&events)) < 0 || (r = nbdk_net_open(&net)) < 0)
		return fail(r);
	if (a->max != UINT64_MAX && setsockopt(nbdk_events_fd(events), SOL_SOCKET,
					       SO_RCVBUF, &bytes, sizeof bytes) < 0)
		die("SO_RCVBUF");
	puts("ready");
	for (;;) {
		struct pollfd fds[] = {
			{ .fd = nbdk_events_fd(events), .events = POLLIN },
			{ .fd = nbdk_net_fd(net), .events = POLLIN },
		};
		size_t before = allocations;

		fflush(stdout);
		if (poll(fds, ARRAY_SIZE(fds), -1) < 0)
			die("poll");
		r = nbdk_events_read(events, print_dead, NULL);
		if (r < 0)
			fail(r);
		r = nbdk_net_read(net, print_net, NULL);
		if (r < 0)
			fail(r);
		tell_allocations(before);
	}
}

static const struct {
	const char *name;
	int (*run)(struct args *a);
} verbs[] = {
	{ "open", verb_open }, { "connect", verb_connect }, { "reconnect", verb_reconnect },
	{ "resize", verb_resize }, { "disconnect", verb_disconnect },
	{ "last-close", verb_last_close },
	{ "status", verb_status }, { "info", verb_info }, { "queue-set", verb_queue_set },
	{ "queue-get", verb_queue_get }, { "foreach", verb_foreach },
	{ "holders", verb_holders }, { "hold", verb_hold }, { "watch", verb_watch },
};

int main(int argc, char **argv)
{
	struct args a = {
		.index = UINT64_MAX, .size = UINT64_MAX, .flags = UINT64_MAX,
		.block = 4096, .dead = NBDK_DEAD_CONN_FOREVER, .max = UINT64_MAX,
		.id = "test",
	};

	for (int i = 2; i < argc; i++)
		take_arg(&a, argv[i]);
	for (size_t i = 0; argc > 1 && i < ARRAY_SIZE(verbs); i++)
		if (!strcmp(argv[1], verbs[i].name))
			return verbs[i].run(&a);
	fprintf(stderr, "usage: nbdkcli VERB [KEY=VALUE ...]\n");
	return 2;
}
