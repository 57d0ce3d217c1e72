/* A configuration file as bytes and lines. */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "conf/internal.h"
#include "lib/util/cleanup.h"

#define READ_STEP 65536

static bool is_text_file(const struct stat *st)
{
	/* A link to /dev/null is how people put a file out of use. */
	return S_ISREG(st->st_mode) ||
	       (S_ISCHR(st->st_mode) && st->st_rdev == makedev(1, 3));
}

/* Up to the end of FD. */
static int read_all(int fd, struct buffer *text)
{
	ssize_t n;
	int r;

	do {
		if (text->len == text->max)
			return -EFBIG;
		r = buffer_reserve(text, MIN((size_t)READ_STEP, text->max - text->len));
		if (r < 0)
			return r;
		n = read(fd, text->data + text->len, text->capacity - text->len);
		if (n < 0 && errno != EINTR)
			return -errno;
		text->len += n > 0 ? (size_t)n : 0;
	} while (n != 0);
	return 0;
}

/* Open FILE; nothing is followed that could block (a FIFO, a terminal). */
static int open_text(const char *file, struct stat *ret_stat)
{
	_cleanup_close_ int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);

	if (fd < 0 || fstat(fd, ret_stat) < 0)
		return -errno;
	return STEAL_FD(fd);
}

static enum conf_reading read_text(const char *file, struct buffer *bytes, int *ret_error)
{
	struct stat st;
	_cleanup_close_ int fd = open_text(file, &st);
	int e;

	if (fd < 0) {
		*ret_error = -fd;
		return fd == -ENOENT ? CONF_MISSING : CONF_NOT_OPENED;
	}
	if (!is_text_file(&st))
		return S_ISDIR(st.st_mode) ? CONF_DIRECTORY : CONF_NO_FILE;
	e = read_all(fd, bytes);
	*ret_error = -e;
	return e == 0 ? CONF_TEXT : e == -EFBIG ? CONF_TOO_LARGE : CONF_NOT_READ;
}

int conf_text_read(struct conf_text *t)
{
	t->reading = t->file ? read_text(t->file, &t->bytes, &t->error) : CONF_MISSING;
	return t->reading == CONF_NOT_READ && t->error == ENOMEM ? -ENOMEM : 0;
}

void conf_text_clear(struct conf_text *t)
{
	buffer_clear(&t->bytes);
}

/* 1, or as conf_problem. */
static int check_reading(struct conf_reader *r, const struct conf_text *t)
{
	switch (t->reading) {
	case CONF_TEXT:
		return 1;
	case CONF_NOT_OPENED:
		return conf_problem(r, 0, true, NULL, "cannot be opened: %s",
				    strerror(t->error));
	case CONF_NOT_READ:
		return conf_problem(r, 0, true, NULL, "cannot be read: %s", strerror(t->error));
	case CONF_TOO_LARGE:
		return conf_problem(r, 0, true, NULL, "is too large; at most %u bytes are "
				    "allowed", CONF_FILE_MAX);
	case CONF_DIRECTORY:
	case CONF_NO_FILE:
		return conf_problem(r, 0, true, NULL, "is %s; a text file is expected",
				    t->reading == CONF_DIRECTORY ? "a directory" : "not a file");
	default:
		return 0;
	}
}

int conf_take(struct conf_reader *r, struct conf_text *t)
{
	struct buffer *text = &t->bytes;
	int e = check_reading(r, t);

	if (e <= 0)
		return e;
	e = buffer_reserve(text, 1);
	if (e < 0)
		return e;
	if (text->len >= 2 && (memcmp(text->data, "\xff\xfe", 2) == 0 ||
			       memcmp(text->data, "\xfe\xff", 2) == 0))
		return conf_problem(r, 1, true, NULL,
				    "is written in UTF-16; save it as UTF-8");
	if (text->len >= 3 && memcmp(text->data, "\xef\xbb\xbf", 3) == 0)
		buffer_consume(text, 3);
	r->next = (char *)text->data;
	r->end = r->next + text->len;
	return 1;
}

bool conf_next_line(struct conf_reader *r, char **ret, size_t *ret_len)
{
	char *line = r->next, *end;

	if (line == r->end)
		return false;
	end = memchr(line, '\n', (size_t)(r->end - line));
	r->next = end ? end + 1 : r->end;
	end = end ? end : r->end;	/* conf_take made room for one byte more */
	if (end > line && end[-1] == '\r')
		end--;
	*end = '\0';
	r->line++;
	*ret = line;
	*ret_len = (size_t)(end - line);
	return true;
}
