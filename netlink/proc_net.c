#include "netlink/proc_net.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/util/cleanup.h"
#include "lib/util/macro.h"

#define LINE_MAX_HERE		512
#define UNIX_CONNECTED		3	/* SS_CONNECTED, as /proc/net/unix has it */

/* proc(5): where the columns of each table are, from 0. */
static const struct table {
	sa_family_t family;
	const char *path;
	unsigned state, inode;
	unsigned long connected;	/* the state of a live connection */
	bool sure;
} tables[] = {
	{ AF_INET, "/proc/net/tcp", 3, 9, TCP_ESTABLISHED, true },
	{ AF_INET6, "/proc/net/tcp6", 3, 9, TCP_ESTABLISHED, true },
	{ AF_UNIX, "/proc/net/unix", 5, 6, UNIX_CONNECTED, false },
};

/* The COLUMNth word of LINE as a number; ~0 when there is none. */
static unsigned long column(const char *line, unsigned wanted, int base)
{
	const char *at = line + strspn(line, " ");

	while (wanted-- && *at) {
		at += strcspn(at, " ");
		at += strspn(at, " ");
	}
	return *at ? strtoul(at, NULL, base) : ~0ul;
}

int proc_net_find(const struct nbdk_sock *s, struct nbdk_sock_info *ret)
{
	const struct table *t = tables;
	_cleanup_fclose_ FILE *f = NULL;
	char line[LINE_MAX_HERE];

	while (t < tables + ARRAY_SIZE(tables) && t->family != s->local.ss_family)
		t++;
	if (t == tables + ARRAY_SIZE(tables))
		return -EAFNOSUPPORT;
	f = fopen(t->path, "re");
	if (!f)
		return -errno;
	*ret = (struct nbdk_sock_info){ .sure = true };
	while (fgets(line, sizeof line, f)) {
		if (column(line, t->inode, 10) != s->inode)
			continue;
		ret->alive = column(line, t->state, 16) == t->connected;
		ret->sure = !ret->alive || t->sure;
		break;
	}
	return 0;
}
