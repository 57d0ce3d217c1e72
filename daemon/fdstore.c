#include "daemon/fdstore.h"

#include <errno.h>
#include <stdio.h>

#include "daemon/link.h"
#include "daemon/manager.h"
#include "daemon/notify.h"
#include "daemon/save.h"

#define TEXT_ROOM	128

/* A descriptor that hangs up systemd drops by itself. */
static int put(struct manager *m, const char *name, int fd)
{
	char text[TEXT_ROOM * 2];

	snprintf(text, sizeof(text), "FDSTORE=1\nFDNAME=%s", name);
	return notify_send_fd(m->notify, text, fd);
}

void fdstore_genl(struct manager *m)
{
	m->genl_due = put(m, FDSTORE_GENL, kworker_fd(m->worker)) == -EAGAIN;
	if (m->genl_due)
		save_later(m);
}

/* The socket's inode in base 36.  All names are one variable in the environment of the next
 * nbdd, which is not executed when that has 128 KiB (MAX_ARG_STRLEN in linux/binfmts.h).  Nobody
 * reads them: an nbdd before this one wrote them longer. */
static void link_name(char name[static TEXT_ROOM], const struct link *l)
{
	char digits[FDSTORE_NAME_MAX], *p = digits + sizeof(digits);
	uint64_t rest = l->sock.inode;

	*--p = '\0';
	do {
		*--p = "0123456789abcdefghijklmnopqrstuvwxyz"[rest % 36];
		rest /= 36;
	} while (rest);
	*--p = FDSTORE_LINK;
	snprintf(name, TEXT_ROOM, "%s", p);
}

void fdstore_link(struct link *l)
{
	struct manager *m = l->device->manager;
	char name[TEXT_ROOM];

	/* One without an inode would not be found again. */
	if (l->stored || l->fd < 0 || l->state != LINK_ALIVE || !l->sock.inode)
		return;
	link_name(name, l);
	l->stored = put(m, name, l->fd) >= 0;
	if (!l->stored)
		save_later(m);
}

void fdstore_drop_link(struct link *l)
{
	char name[TEXT_ROOM], text[TEXT_ROOM * 2];

	if (!l->stored)
		return;
	link_name(name, l);
	snprintf(text, sizeof(text), "FDSTOREREMOVE=1\nFDNAME=%s", name);
	/* If not now, then never: one whose connection has ended goes by itself. */
	(void)notify_send(l->device->manager->notify, text);
	l->stored = false;
}
