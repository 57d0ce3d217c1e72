#include "daemon/job.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/util/cleanup.h"

/* FD -1: memory that is nobody else's. */
static int map(int fd, size_t size, struct job *j)
{
	int flags = MAP_POPULATE | (fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED);
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);

	if (p == MAP_FAILED)
		return -errno;
	if (madvise(p, size, MADV_DONTFORK) < 0 || madvise(p, size, MADV_DONTDUMP) < 0) {
		int r = -errno;

		munmap(p, size);
		return r;
	}
	j->data = p;
	j->size = size;
	return 0;
}

int job_new(size_t size, struct job *ret)
{
	_cleanup_close_ int fd = -1;
	struct job j = JOB_NULL;
	int r;

	if (size == 0 || size > JOB_MAX)
		return -E2BIG;
	fd = memfd_create("job", MFD_CLOEXEC);
	if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
		return -errno;
	r = map(fd, size, &j);
	if (r < 0)
		return r;
	j.fd = STEAL_FD(fd);
	*ret = j;
	return 0;
}

int job_copy(int fd, struct job *ret)
{
	struct job j = JOB_NULL;
	struct stat st;
	int r;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_size <= 0 || (uint64_t)st.st_size > JOB_MAX)
		return -EPROTO;
	r = map(-1, (size_t)st.st_size, &j);
	if (r < 0)
		return r;
	/* Locks are not inherited, and keys are not to be swapped; where a limit is in the way,
	 * it is no worse than the rest of a child's memory. */
	(void)mlock(j.data, j.size);
	if (pread(fd, j.data, j.size, 0) != (ssize_t)j.size) {
		job_free(&j);
		return -EPROTO;
	}
	*ret = j;
	return 0;
}

void job_free(struct job *j)
{
	if (j->data) {
		explicit_bzero(j->data, j->size);
		munmap(j->data, j->size);
	}
	fd_close(j->fd);
	*j = JOB_NULL;
}
