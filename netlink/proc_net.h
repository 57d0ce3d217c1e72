/* Private to netlink/: sockets in the tables of /proc/net, for kernels without socket
 * diagnosis. */
#pragma once

#include "netlink/diag.h"

/* As nbdk_diag_ask.  Of a Unix socket it tells no more than that it is there. */
int proc_net_find(const struct nbdk_sock *s, struct nbdk_sock_info *ret);
