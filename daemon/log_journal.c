#include "daemon/log_journal.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "lib/util/cleanup.h"

#define JOURNAL_SOCKET "/run/systemd/journal/socket"

/* Connected, so that it polls writable when the journal has room. */
static int connect_journal(struct log_journal *j)
{
	static const struct sockaddr_un to = { .sun_family = AF_UNIX,
					       .sun_path = JOURNAL_SOCKET };
	_cleanup_close_ int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (j->known)
		fd_close(j->fd);
	j->known = true;
	j->fd = -1;
	j->writable = sd_event_source_disable_unref(j->writable);
	if (fd < 0 || connect(fd, (const struct sockaddr *)&to, sizeof(to)) < 0)
		return -errno;
	j->fd = STEAL_FD(fd);
	return 0;
}

/* The journal may have been started anew, with another socket. */
static int send_entry(struct log_journal *j, const char *entry, size_t len)
{
	int r = j->known && j->fd >= 0 ? 0 : connect_journal(j);

	for (int attempt = 0; r == 0; attempt++) {
		if (send(j->fd, entry, len, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0)
			return 0;
		if (errno == EAGAIN || errno == ENOBUFS || attempt)
			return -errno;
		r = connect_journal(j);
	}
	return r;
}

static bool busy(int r)
{
	return r == -EAGAIN || r == -ENOBUFS;
}

/* What is not busy and refuses an entry has no use for it: that one is given up. */
static void send_kept(struct log_journal *j)
{
	size_t done = 0;
	uint32_t len;

	while (done < j->kept) {
		memcpy(&len, j->backlog + done, sizeof(len));
		if (busy(send_entry(j, j->backlog + done + sizeof(len), len)))
			break;
		done += sizeof(len) + len;
	}
	j->kept -= done;
	memmove(j->backlog, j->backlog + done, j->kept);
}

static int on_writable(sd_event_source *s, int fd, uint32_t revents, void *userdata)
{
	struct log_journal *j = userdata;

	send_kept(j);
	if (!j->kept)
		j->writable = sd_event_source_disable_unref(j->writable);
	return 0;
}

static int keep(struct log_journal *j, const char *entry, uint32_t len)
{
	if (!j->event || sizeof(j->backlog) - j->kept < sizeof(len) + len)
		return -ENOBUFS;
	if (!j->writable && sd_event_add_io(j->event, &j->writable, j->fd, EPOLLOUT,
					    on_writable, j) < 0)
		return -ENOBUFS;
	memcpy(j->backlog + j->kept, &len, sizeof(len));
	memcpy(j->backlog + j->kept + sizeof(len), entry, len);
	j->kept += sizeof(len) + len;
	return 0;
}

/* NAME=VALUE and a line end; a value with a line end would begin a field of its own. */
static size_t add_field(char *entry, size_t used, const struct log_field *f)
{
	size_t name = strlen(f->name), value = strlen(f->value);
	char *to = entry + used;

	if (LOG_ENTRY_MAX - used < name + value + 2)
		return used;
	memcpy(to, f->name, name);
	to[name] = '=';
	for (size_t i = 0; i < value; i++)
		to[name + 1 + i] = f->value[i] == '\n' ? ' ' : f->value[i];
	to[name + 1 + value] = '\n';
	return used + name + value + 2;
}

int log_journal_send(struct log_journal *j, const struct log_field *fields, size_t n)
{
	char entry[LOG_ENTRY_MAX];
	size_t len = 0;
	int r;

	for (size_t i = 0; i < n; i++)
		len = add_field(entry, len, &fields[i]);
	r = j->kept ? -EAGAIN : send_entry(j, entry, len);
	return busy(r) ? keep(j, entry, (uint32_t)len) : r;
}
