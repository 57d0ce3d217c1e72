/* Requests: each call describes itself and is issued, or run to its end. */
#include "lib/api/call.h"

#define SPEC(t, ...) \
	(struct command_spec) { .type = (t), .flags = flags, ##__VA_ARGS__ }
#define RANGE .offset = offset, .count = count

int api_pread(struct nbd_handle *h, void *buf, size_t count, uint64_t offset, uint32_t flags)
{
	return command_run(h, &SPEC(NBD_CMD_READ, RANGE, .buf = buf));
}

int api_pread_structured(struct nbd_handle *h, void *buf, size_t count, uint64_t offset,
			 nbd_chunk_callback *chunk, uint32_t flags)
{
	return command_run(h, &SPEC(NBD_CMD_READ, RANGE, .buf = buf, .report = REPORT_CHUNK,
				    .callback = chunk));
}

int api_pwrite(struct nbd_handle *h, const void *buf, size_t count, uint64_t offset,
	       uint32_t flags)
{
	return command_run(h, &SPEC(NBD_CMD_WRITE, RANGE, .data = buf));
}

int api_flush(struct nbd_handle *h, uint32_t flags)
{
	return command_run(h, &SPEC(NBD_CMD_FLUSH));
}

int api_trim(struct nbd_handle *h, uint64_t count, uint64_t offset, uint32_t flags)
{
	return command_run(h, &SPEC(NBD_CMD_TRIM, RANGE));
}

int api_cache(struct nbd_handle *h, uint64_t count, uint64_t offset, uint32_t flags)
{
	return command_run(h, &SPEC(NBD_CMD_CACHE, RANGE));
}

int api_zero(struct nbd_handle *h, uint64_t count, uint64_t offset, uint32_t flags)
{
	return command_run(h, &SPEC(NBD_CMD_WRITE_ZEROES, RANGE));
}

int api_block_status(struct nbd_handle *h, uint64_t count, uint64_t offset,
		     nbd_extent_callback *extent, uint32_t flags)
{
	return command_run(h, &SPEC(NBD_CMD_BLOCK_STATUS, RANGE, .report = REPORT_EXTENT,
				    .callback = extent));
}

int api_block_status_64(struct nbd_handle *h, uint64_t count, uint64_t offset,
			nbd_extent64_callback *extent64, uint32_t flags)
{
	return command_run(h, &SPEC(NBD_CMD_BLOCK_STATUS, RANGE, .report = REPORT_EXTENT64,
				    .callback = extent64));
}

int api_block_status_filter(struct nbd_handle *h, uint64_t count, uint64_t offset,
			    char **contexts, nbd_extent64_callback *extent64, uint32_t flags)
{
	return command_run(h, &SPEC(NBD_CMD_BLOCK_STATUS, RANGE, .report = REPORT_EXTENT64,
				    .callback = extent64, .contexts = contexts));
}

int api_shutdown(struct nbd_handle *h, uint32_t flags)
{
	return session_shutdown(h, flags);
}

int64_t api_aio_pread(struct nbd_handle *h, void *buf, size_t count, uint64_t offset,
		      nbd_completion_callback *completion, uint32_t flags)
{
	return command_issue(h, &SPEC(NBD_CMD_READ, RANGE, .buf = buf,
				      .completion = completion));
}

int64_t api_aio_pread_structured(struct nbd_handle *h, void *buf, size_t count,
				 uint64_t offset, nbd_chunk_callback *chunk,
				 nbd_completion_callback *completion, uint32_t flags)
{
	return command_issue(h, &SPEC(NBD_CMD_READ, RANGE, .buf = buf, .report = REPORT_CHUNK,
				      .callback = chunk, .completion = completion));
}

int64_t api_aio_pwrite(struct nbd_handle *h, const void *buf, size_t count, uint64_t offset,
		       nbd_completion_callback *completion, uint32_t flags)
{
	return command_issue(h, &SPEC(NBD_CMD_WRITE, RANGE, .data = buf,
				      .completion = completion));
}

int64_t api_aio_flush(struct nbd_handle *h, nbd_completion_callback *completion, uint32_t flags)
{
	return command_issue(h, &SPEC(NBD_CMD_FLUSH, .completion = completion));
}

int64_t api_aio_trim(struct nbd_handle *h, uint64_t count, uint64_t offset,
		     nbd_completion_callback *completion, uint32_t flags)
{
	return command_issue(h, &SPEC(NBD_CMD_TRIM, RANGE, .completion = completion));
}

int64_t api_aio_cache(struct nbd_handle *h, uint64_t count, uint64_t offset,
		      nbd_completion_callback *completion, uint32_t flags)
{
	return command_issue(h, &SPEC(NBD_CMD_CACHE, RANGE, .completion = completion));
}

int64_t api_aio_zero(struct nbd_handle *h, uint64_t count, uint64_t offset,
		     nbd_completion_callback *completion, uint32_t flags)
{
	return command_issue(h, &SPEC(NBD_CMD_WRITE_ZEROES, RANGE, .completion = completion));
}

int64_t api_aio_block_status(struct nbd_handle *h, uint64_t count, uint64_t offset,
			     nbd_extent_callback *extent, nbd_completion_callback *completion,
			     uint32_t flags)
{
	return command_issue(h, &SPEC(NBD_CMD_BLOCK_STATUS, RANGE, .report = REPORT_EXTENT,
				      .callback = extent, .completion = completion));
}

int64_t api_aio_block_status_64(struct nbd_handle *h, uint64_t count, uint64_t offset,
				nbd_extent64_callback *extent64,
				nbd_completion_callback *completion, uint32_t flags)
{
	return command_issue(h, &SPEC(NBD_CMD_BLOCK_STATUS, RANGE, .report = REPORT_EXTENT64,
				      .callback = extent64, .completion = completion));
}

int64_t api_aio_block_status_filter(struct nbd_handle *h, uint64_t count, uint64_t offset,
				    char **contexts, nbd_extent64_callback *extent64,
				    nbd_completion_callback *completion, uint32_t flags)
{
	return command_issue(h, &SPEC(NBD_CMD_BLOCK_STATUS, RANGE, .report = REPORT_EXTENT64,
				      .callback = extent64, .contexts = contexts,
				      .completion = completion));
}

int api_aio_disconnect(struct nbd_handle *h, uint32_t flags)
{
	if (flags)
		return session_error(h, EINVAL, "flags: invalid value for flag: 0x%x", flags);
	return session_disconnect(h, flags);
}

/* The bytes of all buffers together; SIZE_MAX when they do not fit. */
static uint64_t iov_total(const struct iovec *iov, size_t n)
{
	size_t sum = 0;

	for (size_t i = 0; i < n; i++)
		if (__builtin_add_overflow(sum, iov[i].iov_len, &sum))
			return SIZE_MAX;
	return sum;
}

#define VECTOR .offset = offset, .count = iov_total(iov, iovcnt), .iov = iov, .iovcnt = iovcnt

int api_preadv(struct nbd_handle *h, const struct iovec *iov, size_t iovcnt, uint64_t offset,
	       uint32_t flags)
{
	return command_run(h, &SPEC(NBD_CMD_READ, VECTOR));
}

int api_pwritev(struct nbd_handle *h, const struct iovec *iov, size_t iovcnt, uint64_t offset,
		uint32_t flags)
{
	return command_run(h, &SPEC(NBD_CMD_WRITE, VECTOR));
}

int64_t api_aio_preadv(struct nbd_handle *h, const struct iovec *iov, size_t iovcnt,
		       uint64_t offset, nbd_completion_callback *completion, uint32_t flags)
{
	return command_issue(h, &SPEC(NBD_CMD_READ, VECTOR, .completion = completion));
}

int64_t api_aio_pwritev(struct nbd_handle *h, const struct iovec *iov, size_t iovcnt,
			uint64_t offset, nbd_completion_callback *completion, uint32_t flags)
{
	return command_issue(h, &SPEC(NBD_CMD_WRITE, VECTOR, .completion = completion));
}
