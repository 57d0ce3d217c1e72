#include "daemon/inherit.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>

#include "daemon/fdstore.h"
#include "daemon/log.h"
#include "lib/util/cleanup.h"

static void take(struct inherited *i, const char *name, int fd)
{
	int *place = NULL;

	fd_set_cloexec(fd, true);
	if (strcmp(name, FDSTORE_GENL) == 0)
		place = &i->genl;
	else if (sd_is_socket_unix(fd, SOCK_STREAM, 1, NULL, 0) > 0)
		place = &i->listen;
	else if (sd_is_socket(fd, AF_UNSPEC, SOCK_STREAM, 0) > 0)
		place = &i->links.fds[i->links.n++];
	if (place && *place < 0) {
		*place = fd;
		return;
	}
	log_warning("descriptor %d ('%s') from systemd is none that nbdd knows: closed", fd,
		    name);
	fd_close(fd);
}

int inherit_from_systemd(struct inherited *ret)
{
	char **names = NULL;
	int n = sd_listen_fds_with_names(true, &names);

	*ret = INHERITED_NULL;
	if (n <= 0)
		return n;
	ret->links.fds = malloc((size_t)n * sizeof(*ret->links.fds));
	for (int i = 0; i < n; i++) {
		if (ret->links.fds) {
			ret->links.fds[i] = -1;
			take(ret, names[i], SD_LISTEN_FDS_START + i);
		}
		free(names[i]);
	}
	free(names);
	return ret->links.fds ? 0 : -ENOMEM;
}

void inherited_merge(struct inherited *into, struct inherited *from)
{
	struct adopt_fds *to = &into->links;
	int *fds;

	if (from->listen >= 0) {
		fd_close(into->listen);
		into->listen = STEAL_FD(from->listen);
	}
	if (into->genl < 0)
		into->genl = STEAL_FD(from->genl);
	if (from->links.n == 0)
		return;
	fds = reallocarray(to->fds, to->n + from->links.n, sizeof(*fds));
	if (!fds)
		return;
	to->fds = fds;
	memcpy(fds + to->n, from->links.fds, from->links.n * sizeof(*fds));
	to->n += from->links.n;
	from->links.n = 0;
}

void inherited_close(struct inherited *i)
{
	fd_close(i->listen);
	fd_close(i->genl);
	adopt_fds_close(&i->links);
	*i = INHERITED_NULL;
}
