/* nbdbench: what an NBD client library costs per operation, through its public API.
 *
 * Takes the options of load.h and prints a line of JSON; all figures are per operation.  It
 * uses what libnbd 1.14 has, so LD_LIBRARY_PATH picks the library that is measured. */
#include <err.h>
#include <errno.h>
#include <libnbd.h>
#include <poll.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/bench/load.h"

#define MEMORY_HANDLES	500

/* A place for one operation in flight. */
struct slot {
	struct stream *stream;
	uint8_t *buffer;
	uint64_t offset;
	int64_t cookie;
	bool reads;
};

/* A connection with its operations. */
struct stream {
	const struct options *options;
	const struct mode *mode;
	struct nbd_handle *h;
	struct slot *slots, **idle;
	unsigned n_idle;
	uint64_t issued, done, next_offset;
};

static void fail(const char *what)
{
	errx(1, "%s: %s", what, nbd_get_error());
}

static struct nbd_handle *open_handle(const struct options *o, bool connect)
{
	struct nbd_handle *h = nbd_create();

	if (!h)
		fail("nbd_create");
	if (o->simple && nbd_set_request_structured_replies(h, false))
		fail("nbd_set_request_structured_replies");
	if (nbd_set_uri_allow_local_file(h, true))
		fail("nbd_set_uri_allow_local_file");
	if (connect && nbd_connect_uri(h, o->uri))
		fail("nbd_connect_uri");
	return h;
}

static void close_handle(struct nbd_handle *h)
{
	if (nbd_shutdown(h, 0))
		fail("nbd_shutdown");
	nbd_close(h);
}

/* Streams ---------------------------------------------------------------------------- */

static void stream_open(struct stream *s, const struct options *o, const struct mode *m)
{
	uint8_t *memory = load_buffers(m);

	*s = (struct stream) { .options = o, .mode = m, .h = open_handle(o, true),
			       .slots = calloc(m->depth, sizeof(*s->slots)),
			       .idle = calloc(m->depth, sizeof(*s->idle)) };
	if (!s->slots || !s->idle)
		err(1, "memory");
	for (unsigned i = 0; i < m->depth; i++) {
		s->slots[i] = (struct slot) { .stream = s,
					      .buffer = memory + (size_t)i * m->size };
		s->idle[s->n_idle++] = &s->slots[i];
	}
}

static void stream_close(struct stream *s)
{
	close_handle(s->h);
	free(s->slots[0].buffer);
	free(s->slots);
	free(s->idle);
}

static int finished(void *data, int *error)
{
	struct slot *slot = data;
	struct stream *s = slot->stream;

	if (*error)
		errx(1, "operation failed: %s", strerror(*error));
	if (s->options->verify && slot->reads)
		load_verify(slot->buffer, slot->offset, s->mode->size);
	s->idle[s->n_idle++] = slot;
	s->done++;
	return 1;
}

static void issue(struct stream *s, struct slot *slot, nbd_completion_callback cb)
{
	const struct mode *m = s->mode;

	slot->offset = s->next_offset;
	s->next_offset = (s->next_offset + m->size) % PLACES;
	slot->reads = load_reads(m, s->issued);
	if (slot->reads)
		slot->cookie = nbd_aio_pread(s->h, slot->buffer, m->size, slot->offset, cb, 0);
	else if (m->kind == TRIM)
		slot->cookie = nbd_aio_trim(s->h, m->size, slot->offset, cb, 0);
	else if (m->kind == FLUSH)
		slot->cookie = nbd_aio_flush(s->h, cb, 0);
	else
		slot->cookie = nbd_aio_pwrite(s->h, slot->buffer, m->size, slot->offset, cb, 0);
	if (slot->cookie < 0)
		fail("issuing an operation");
	s->issued++;
}

static void fill(struct stream *s)
{
	while (s->n_idle) {
		struct slot *slot = s->idle[--s->n_idle];

		issue(s, slot, (nbd_completion_callback) { .callback = finished,
							   .user_data = slot });
	}
}

/* Modes ------------------------------------------------------------------------------ */

/* Operations completed by callbacks, driven by nbd_poll. */
static void run_poll(const struct options *o, const struct mode *m)
{
	struct stream s;
	struct meter start;

	stream_open(&s, o, m);
	start = meter_read();
	while (!load_enough(o, &start, s.issued)) {
		fill(&s);
		if (nbd_poll(s.h, -1) < 0)
			fail("nbd_poll");
	}
	while (s.done < s.issued)
		if (nbd_poll(s.h, -1) < 0)
			fail("nbd_poll");
	meter_report(m->name, &start, s.done, m->size);
	stream_close(&s);
}

/* Completions found by nbd_aio_peek_command_completed. */
static void run_peek(const struct options *o, const struct mode *m)
{
	struct stream s;
	struct meter start;
	bool over = false;

	stream_open(&s, o, m);
	start = meter_read();
	for (unsigned i = 0; i < m->depth; i++)
		issue(&s, &s.slots[i], NBD_NULL_COMPLETION);
	while (s.done < s.issued) {
		int64_t cookie;

		over = over || load_enough(o, &start, s.issued);
		if (nbd_poll(s.h, -1) < 0)
			fail("nbd_poll");
		while ((cookie = nbd_aio_peek_command_completed(s.h)) > 0) {
			/* Replies come in order, so the slots take turns. */
			struct slot *slot = &s.slots[s.done++ % m->depth];

			if (nbd_aio_command_completed(s.h, cookie) != 1)
				fail("nbd_aio_command_completed");
			if (!over)
				issue(&s, slot, NBD_NULL_COMPLETION);
		}
	}
	meter_report(m->name, &start, s.done, m->size);
	stream_close(&s);
}

static bool notify(struct stream *s, short events)
{
	unsigned direction = nbd_aio_get_direction(s->h);

	if (direction & LIBNBD_AIO_DIRECTION_READ && events & (POLLIN | POLLHUP))
		return nbd_aio_notify_read(s->h) == 0;
	if (direction & LIBNBD_AIO_DIRECTION_WRITE && events & POLLOUT)
		return nbd_aio_notify_write(s->h) == 0;
	return true;
}

/* Many connections in one loop of poll(2), as an event-driven program has it. */
static void run_loop(const struct options *o, const struct mode *m)
{
	struct stream *streams = calloc(m->connections, sizeof(*streams));
	struct pollfd *polled = calloc(m->connections, sizeof(*polled));
	uint64_t done = 0, issued = 0;
	struct meter start;
	bool over = false;

	for (unsigned i = 0; i < m->connections; i++)
		stream_open(&streams[i], o, m);
	start = meter_read();
	do {
		over = over || load_enough(o, &start, done);
		issued = 0;
		for (unsigned i = 0; i < m->connections; i++) {
			struct stream *s = &streams[i];
			unsigned direction;

			if (!over)
				fill(s);
			direction = nbd_aio_get_direction(s->h);
			polled[i].fd = nbd_aio_get_fd(s->h);
			polled[i].events =
				(direction & LIBNBD_AIO_DIRECTION_READ ? POLLIN : 0) |
				(direction & LIBNBD_AIO_DIRECTION_WRITE ? POLLOUT : 0);
			polled[i].revents = 0;
			issued += s->issued;
		}
		/* All may have been answered in the turn in which the time was over. */
		if (done < issued && poll(polled, m->connections, -1) < 0)
			err(1, "poll");
		done = 0;
		for (unsigned i = 0; i < m->connections; i++) {
			if (polled[i].revents && !notify(&streams[i], polled[i].revents))
				fail("notify");
			done += streams[i].done;
		}
	} while (!over || done < issued);
	meter_report(m->name, &start, done, m->size);
	for (unsigned i = 0; i < m->connections; i++)
		stream_close(&streams[i]);
	free(streams);
	free(polled);
}

static void run_sync(const struct options *o, const struct mode *m)
{
	struct nbd_handle *h = open_handle(o, true);
	uint8_t *buffer = load_buffers(m);
	struct meter start = meter_read();
	uint64_t ops = 0;

	for (; !load_enough(o, &start, ops); ops++) {
		uint64_t offset = ops * m->size % PLACES;

		if (m->kind == READ ? nbd_pread(h, buffer, m->size, offset, 0)
				    : nbd_pwrite(h, buffer, m->size, offset, 0))
			fail("synchronous operation");
		if (o->verify && m->kind == READ)
			load_verify(buffer, offset, m->size);
	}
	meter_report(m->name, &start, ops, m->size);
	free(buffer);
	close_handle(h);
}

static void run_connect(const struct options *o, const struct mode *m)
{
	struct meter start = meter_read();
	uint64_t ops = 0;

	for (; !load_enough(o, &start, ops); ops++)
		close_handle(open_handle(o, true));
	meter_report(m->name, &start, ops, 0);
}

static void run_create(const struct options *o, const struct mode *m)
{
	struct meter start = meter_read();
	uint64_t ops = 0;

	for (; !load_enough(o, &start, ops); ops++)
		nbd_close(open_handle(o, false));
	meter_report(m->name, &start, ops, 0);
}

/* Resident bytes of this process. */
static long resident(void)
{
	FILE *f = fopen("/proc/self/statm", "re");
	long pages;

	if (!f || fscanf(f, "%*d %ld", &pages) != 1)
		err(1, "/proc/self/statm");
	fclose(f);
	return pages * sysconf(_SC_PAGESIZE);
}

/* Bytes that a handle takes: created, connected, and after one read. */
static void run_memory(const struct options *o, const struct mode *m)
{
	static struct nbd_handle *h[MEMORY_HANDLES];
	long at[4];
	uint8_t block[4096];

	close_handle(open_handle(o, true));
	at[0] = resident();
	for (unsigned i = 0; i < MEMORY_HANDLES; i++)
		h[i] = open_handle(o, false);
	at[1] = resident();
	for (unsigned i = 0; i < MEMORY_HANDLES; i++)
		if (nbd_connect_uri(h[i], o->uri))
			fail("nbd_connect_uri");
	at[2] = resident();
	for (unsigned i = 0; i < MEMORY_HANDLES; i++)
		if (nbd_pread(h[i], block, sizeof(block), 0, 0))
			fail("nbd_pread");
	at[3] = resident();
	printf("{\"mode\": \"%s\", \"created\": %ld, \"connected\": %ld, \"used\": %ld}\n",
	       m->name, (at[1] - at[0]) / MEMORY_HANDLES, (at[2] - at[0]) / MEMORY_HANDLES,
	       (at[3] - at[0]) / MEMORY_HANDLES);
	for (unsigned i = 0; i < MEMORY_HANDLES; i++)
		close_handle(h[i]);
}

int main(int argc, char **argv)
{
	static const load_runner runners[N_WAYS] = {
		[SYNC] = run_sync, [POLL] = run_poll, [PEEK] = run_peek, [LOOP] = run_loop,
		[CONNECT] = run_connect, [CREATE] = run_create, [MEMORY] = run_memory,
	};

	return load_main(argc, argv, runners);
}
