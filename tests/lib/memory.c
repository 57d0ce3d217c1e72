/* memory SOCKET: what handles cost, in bytes a handle, as `name number` lines.
 * SOCKET is a server's of 64 MiB. */
#include <malloc.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "tests/lib/check.h"

#define HANDLES 1000
#define CONNECTED 32
#define DEPTH 512
#define BIG (1 << 20)

/* Bytes that malloc has given out. */
static size_t heap(void)
{
	struct mallinfo2 m = mallinfo2();

	return m.uordblks + m.hblkhd;
}

static size_t resident(void)
{
	FILE *f = fopen("/proc/self/statm", "r");
	size_t total, pages;

	CHECK(f && fscanf(f, "%zu %zu", &total, &pages) == 2);
	fclose(f);
	return pages * (size_t)sysconf(_SC_PAGESIZE);
}

static void created(void)
{
	static struct nbd_handle *h[HANDLES];
	size_t before, rss;

	before = heap();
	rss = resident();
	for (int i = 0; i < HANDLES; i++)
		CHECK(h[i] = nbd_create());
	printf("created %zu\n", (heap() - before) / HANDLES);
	printf("created-resident %zu\n", (resident() - rss) / HANDLES);
	for (int i = 0; i < HANDLES; i++)
		nbd_close(h[i]);
	printf("closed %zu\n", (heap() - before) / HANDLES);
}

/* DEPTH small and some big requests at once, until all are answered. */
static void burst(struct nbd_handle *h, char *buf)
{
	for (int i = 0; i < DEPTH; i++)
		CHECK(nbd_aio_pread(h, buf, 4096, 0, NBD_NULL_COMPLETION, 0) > 0);
	for (int i = 0; i < 4; i++) {
		CHECK(nbd_aio_pread(h, buf, BIG, 0, NBD_NULL_COMPLETION, 0) > 0);
		CHECK(nbd_aio_pwrite(h, buf, BIG, 0, NBD_NULL_COMPLETION, 0) > 0);
	}
	while (nbd_aio_in_flight(h) > 0)
		CHECK(nbd_poll(h, -1) == 1);
	for (int64_t cookie; (cookie = nbd_aio_peek_command_completed(h)) > 0;)
		CHECK(nbd_aio_command_completed(h, (uint64_t)cookie) == 1);
}

static struct nbd_handle *connect_to(const char *socket)
{
	struct nbd_handle *h = nbd_create();

	CHECK(h && nbd_connect_unix(h, socket) == 0);
	return h;
}

static void connected(const char *socket, char *buf)
{
	struct nbd_handle *h[CONNECTED];
	size_t before = heap();

	for (int i = 0; i < CONNECTED; i++)
		h[i] = connect_to(socket);
	printf("connected %zu\n", (heap() - before) / CONNECTED);
	for (int i = 0; i < CONNECTED; i++)
		CHECK(nbd_pread(h[i], buf, 4096, 0, 0) == 0);
	printf("used %zu\n", (heap() - before) / CONNECTED);
	for (int i = 0; i < CONNECTED; i++)
		burst(h[i], buf);
	printf("idle-after-burst %zu\n", (heap() - before) / CONNECTED);
	for (int i = 0; i < CONNECTED; i++)
		nbd_close(h[i]);
	printf("closed-after-burst %zu\n", (heap() - before) / CONNECTED);
}

int main(int argc, char **argv)
{
	static char out[4096], buf[BIG];
	struct nbd_handle *first;

	if (argc != 2)
		return 2;
	setvbuf(stdout, out, _IOFBF, sizeof(out));
	memset(buf, 1, BIG);
	/* What the first one of all brings along belongs to the process. */
	first = connect_to(argv[1]);
	burst(first, buf);
	nbd_close(first);
	created();
	connected(argv[1], buf);
	return 0;
}
