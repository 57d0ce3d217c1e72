/* Descriptors that outlive the daemon in systemd's store (FileDescriptorStoreMax=), each
 * under a name of its own: of the live connections, and of the netlink socket that connected
 * the devices. */
#pragma once

#include <stdbool.h>

struct link;
struct manager;

#define FDSTORE_GENL	"genl"
#define FDSTORE_LINK	'n'		/* how the others begin */
#define FDSTORE_NAME_MAX 15		/* of a connection: that, 13 digits, NUL */

/* What cannot be sent now is sent later. */
void fdstore_genl(struct manager *m);
/* A link that lives is put in, one that has ended is taken out. */
void fdstore_link(struct link *l);
void fdstore_drop_link(struct link *l);
