/* What nbdd tells systemd, or whoever listens on NOTIFY_SOCKET.
 *
 * sd_notify(3) waits when nobody reads, and PID 1 may itself wait for a page on a device that
 * waits for us; so this one never does. */
#pragma once

#include <stddef.h>

#include "lib/util/macro.h"

struct notify;

/* 0 or -errno; *RET is NULL when nobody wants to know, which the other calls take. */
_must_check_ int notify_open(struct notify **ret);
void notify_close(struct notify *n);
/* 0, also when nobody wants to know; -EAGAIN: not now; or another -errno. */
int notify_send(struct notify *n, const char *text);
/* As above, with descriptor FD. */
int notify_send_fd(struct notify *n, const char *text, int fd);
