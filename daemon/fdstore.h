/* Descriptors that outlive the daemon in systemd's store (FileDescriptorStoreMax=), each
 * under a name of its own: of the live connections, and of the netlink socket that connected
 * the devices. */
#pragma once

#include <stdbool.h>

struct link;
struct manager;

#define FDSTORE_GENL	"genl"

/* 0; -EAGAIN: not now. */
int fdstore_put(struct manager *m, const char *name, int fd);
/* A link that lives is put in, one that has ended is taken out.  What cannot be sent now is
 * sent later. */
void fdstore_link(struct link *l);
void fdstore_drop_link(struct link *l);
