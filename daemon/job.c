#include "daemon/job.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/util/cleanup.h"

static int map(int fd, size_t size, struct job *j)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, 0);

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

int job_map(int fd, struct job *ret)
{
	struct job j = JOB_NULL;
	struct stat st;
	int r;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode) || st.st_size <= 0 || (uint64_t)st.st_size > JOB_MAX)
		return -EPROTO;
	r = map(fd, (size_t)st.st_size, &j);
	if (r >= 0)
		*ret = j;
	return r;
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
