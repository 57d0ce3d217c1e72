/* The commands that a plan can name, a row each. */
#include <errno.h>
#include <nbdd.h>
#include <string.h>

#include "lib/util/macro.h"
#include "tests/fuzz/lib_client.h"
#include "tests/fuzz/promise.h"

/* What an argument means for a command. */
static uint64_t offset_of(uint8_t a)
{
	static const uint64_t offsets[] = { 0, 512, 65536, 1 << 20 };

	return offsets[a & 3];
}

static size_t count_of(uint8_t a)
{
	static const uint32_t counts[] = { 512, 1, 4096, 70000 };

	return counts[a >> 2 & 3];
}

/* None, or the flag that the command knows. */
static uint32_t flag_of(uint8_t a, uint32_t flag)
{
	return a & 16 ? flag : 0;
}

static int on_chunk(void *data, const void *sub, size_t count, uint64_t offset,
		    unsigned status, int *error)
{
	struct watch *w = client_called(data);

	PROMISE(offset >= w->offset && offset - w->offset <= w->count);
	PROMISE(count <= w->count - (offset - w->offset));
	PROMISE((const uint8_t *)sub == w->buf + (offset - w->offset));
	PROMISE(status >= LIBNBD_READ_DATA && status <= LIBNBD_READ_ERROR && *error >= 0);
	client_touch(sub, count);
	return MIN(w->ret, 0);
}

static int on_extent(void *data, const char *context, uint64_t offset, uint32_t *entries,
		     size_t n, int *error)
{
	struct watch *w = client_called(data);

	PROMISE(n >= 2 && n % 2 == 0 && offset == w->offset && *error >= 0);
	client_touch(context, strlen(context));
	for (size_t i = 0; i < n; i += 2)
		PROMISE(entries[i] > 0);
	return MIN(w->ret, 0);
}

static int on_extent64(void *data, const char *context, uint64_t offset, nbd_extent *entries,
		       size_t n, int *error)
{
	struct watch *w = client_called(data);

	PROMISE(n >= 1 && offset == w->offset && *error >= 0);
	client_touch(context, strlen(context));
	for (size_t i = 0; i < n; i++)
		PROMISE(entries[i].length > 0);
	return MIN(w->ret, 0);
}

static struct watch *range_watch(struct client *c, uint8_t a, const void *buf)
{
	struct watch *w = client_watch(c, client_ret(a));

	w->buf = buf;
	w->offset = offset_of(a);
	w->count = count_of(a);
	return w;
}

/* Calls of a plan: `s_` wait for their end, `a_` do not. */
/* A read into BUF, which nobody has initialised, gave RESULT: valgrind and MemorySanitizer
 * would tell if not all of it had been filled. */
static void was_read(struct client *c, const void *buf, size_t len, int result)
{
	client_check(c, result);
	if (result == 0 && nbd_get_pread_initialize(c->h))
		client_touch(buf, len);
}

static void s_pread(struct client *c, uint8_t a)
{
	size_t n = count_of(a);
	uint8_t *buf = malloc(n);

	PROMISE(buf);
	was_read(c, buf, n, nbd_pread(c->h, buf, n, offset_of(a), 0));
	free(buf);
}

static void s_pread_structured(struct client *c, uint8_t a)
{
	uint8_t *buf = malloc(count_of(a));
	struct watch *w = range_watch(c, a, buf);

	PROMISE(buf);
	was_read(c, buf, count_of(a),
		 nbd_pread_structured(c->h, buf, count_of(a), offset_of(a),
				      CLIENT_CALLBACK(chunk, on_chunk, w),
				      flag_of(a, LIBNBD_CMD_FLAG_DF)));
	PROMISE(w->freed == 1);
	free(buf);
}

static void s_pwrite(struct client *c, uint8_t a)
{
	static const uint8_t zeroes[70000];

	client_check(c, nbd_pwrite(c->h, zeroes, count_of(a), offset_of(a),
				   flag_of(a, LIBNBD_CMD_FLAG_FUA)));
}

static void s_flush(struct client *c, uint8_t a)
{
	client_check(c, nbd_flush(c->h, 0));
}

static void s_trim(struct client *c, uint8_t a)
{
	client_check(c, nbd_trim(c->h, count_of(a), offset_of(a),
				 flag_of(a, LIBNBD_CMD_FLAG_FUA)));
}

static void s_cache(struct client *c, uint8_t a)
{
	client_check(c, nbd_cache(c->h, count_of(a), offset_of(a), 0));
}

static void s_zero(struct client *c, uint8_t a)
{
	client_check(c, nbd_zero(c->h, count_of(a), offset_of(a),
				 flag_of(a, LIBNBD_CMD_FLAG_FAST_ZERO)));
}

static void s_block_status(struct client *c, uint8_t a)
{
	struct watch *w = range_watch(c, a, NULL);

	client_check(c, nbd_block_status(c->h, count_of(a), offset_of(a),
					 CLIENT_CALLBACK(extent, on_extent, w),
					 flag_of(a, LIBNBD_CMD_FLAG_REQ_ONE)));
	PROMISE(w->freed == 1);
}

static void s_block_status_64(struct client *c, uint8_t a)
{
	struct watch *w = range_watch(c, a, NULL);

	client_check(c, nbd_block_status_64(c->h, count_of(a), offset_of(a),
					    CLIENT_CALLBACK(extent64, on_extent64, w),
					    flag_of(a, LIBNBD_CMD_FLAG_REQ_ONE)));
	PROMISE(w->freed == 1);
}

static void s_filter(struct client *c, uint8_t a)
{
	char *contexts[] = { (char *)LIBNBD_CONTEXT_BASE_ALLOCATION, NULL };
	struct watch *w = range_watch(c, a, NULL);

	client_check(c, nbd_block_status_filter(c->h, count_of(a), offset_of(a), contexts,
						CLIENT_CALLBACK(extent64, on_extent64, w), 0));
	PROMISE(w->freed == 1);
}

/* In three buffers, the middle one empty. */
static void vector(struct client *c, uint8_t a, struct iovec iov[static 3])
{
	size_t n = count_of(a), first = n / 3;
	uint8_t *buf = client_alloc(c, first), *rest = client_alloc(c, n - first);

	iov[0] = (struct iovec) { buf, first };
	iov[1] = (struct iovec) { buf, 0 };
	iov[2] = (struct iovec) { rest, n - first };
}

static void s_preadv(struct client *c, uint8_t a)
{
	struct iovec iov[3];

	vector(c, a, iov);
	was_read(c, iov[2].iov_base, iov[2].iov_len,
		 nbdd_preadv(c->h, iov, 3, offset_of(a), 0));
}

static void a_preadv(struct client *c, uint8_t a)
{
	struct iovec iov[3];

	vector(c, a, iov);
	CLIENT_ISSUE(nbdd_aio_preadv(c->h, iov, 3, offset_of(a), client_completion(c, a, &w), 0));
}

static void a_pwritev(struct client *c, uint8_t a)
{
	struct iovec iov[3];

	vector(c, a, iov);
	memset(iov[0].iov_base, 2, iov[0].iov_len);
	memset(iov[2].iov_base, 3, iov[2].iov_len);
	CLIENT_ISSUE(nbdd_aio_pwritev(c->h, iov, 3, offset_of(a), client_completion(c, a, &w), 0));
}

static void a_pread(struct client *c, uint8_t a)
{
	void *buf = memset(client_alloc(c, count_of(a)), 4, count_of(a));

	CLIENT_ISSUE(nbd_aio_pread(c->h, buf, count_of(a), offset_of(a),
				   client_completion(c, a, &w), 0));
}

static void a_pread_structured(struct client *c, uint8_t a)
{
	void *buf = memset(client_alloc(c, count_of(a)), 5, count_of(a));
	struct watch *chunk = range_watch(c, a, buf);

	CLIENT_ISSUE(nbd_aio_pread_structured(c->h, buf, count_of(a), offset_of(a),
					      CLIENT_CALLBACK(chunk, on_chunk, chunk),
					      client_completion(c, a, &w),
					      flag_of(a, LIBNBD_CMD_FLAG_DF)));
}

static void a_pwrite(struct client *c, uint8_t a)
{
	void *buf = memset(client_alloc(c, count_of(a)), 6, count_of(a));

	CLIENT_ISSUE(nbd_aio_pwrite(c->h, buf, count_of(a), offset_of(a),
				    client_completion(c, a, &w), flag_of(a, LIBNBD_CMD_FLAG_FUA)));
}

static void a_flush(struct client *c, uint8_t a)
{
	CLIENT_ISSUE(nbd_aio_flush(c->h, client_completion(c, a, &w), 0));
}

static void a_zero(struct client *c, uint8_t a)
{
	CLIENT_ISSUE(nbd_aio_zero(c->h, count_of(a), offset_of(a), client_completion(c, a, &w),
				  flag_of(a, LIBNBD_CMD_FLAG_NO_HOLE)));
}

static void a_block_status(struct client *c, uint8_t a)
{
	struct watch *extent = range_watch(c, a, NULL);

	CLIENT_ISSUE(nbd_aio_block_status(c->h, count_of(a), offset_of(a),
					  CLIENT_CALLBACK(extent, on_extent, extent),
					  client_completion(c, a, &w), 0));
}

static void a_block_status_64(struct client *c, uint8_t a)
{
	struct watch *extent = range_watch(c, a, NULL);

	CLIENT_ISSUE(nbd_aio_block_status_64(c->h, count_of(a), offset_of(a),
					     CLIENT_CALLBACK(extent64, on_extent64, extent),
					     client_completion(c, a, &w), 0));
}

/* More requests than the library keeps buffers for. */
static void a_burst(struct client *c, uint8_t a)
{
	uint8_t *buf = client_alloc(c, 512);

	for (unsigned i = 0; i < 320; i++)
		client_check(c, a & 1 ? nbd_aio_pwrite(c->h, memset(buf, 7, 512), 512, 0,
						       NBD_NULL_COMPLETION, 0)
				      : nbd_aio_pread(c->h, buf, 512, 0,
						      NBD_NULL_COMPLETION, 0));
}

static void (*const calls[])(struct client *c, uint8_t a) = {
	s_pread, s_pread_structured, s_pwrite, s_flush, s_trim, s_cache, s_zero,
	s_block_status, s_block_status_64, s_filter, s_preadv, a_preadv, a_pwritev, a_pread,
	a_pread_structured, a_pwrite, a_flush, a_zero, a_block_status, a_block_status_64,
	a_burst,
};

void client_call(struct client *c, uint8_t number, uint8_t argument)
{
	if (number & 0x80)
		client_option_call(c, number & 0x7f, argument);
	else
		calls[number % ARRAY_SIZE(calls)](c, argument);
}
