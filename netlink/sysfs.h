/* Private to netlink/: small files of sysfs, read into bounded buffers. */
#pragma once

#include <stddef.h>

#include "lib/util/macro.h"

/* An O_PATH descriptor of /sys/block/nbdINDEX; -ENOENT, -ENODEV as nbdk_sysfs_read. */
_must_check_ int sysfs_open_device(unsigned index);

/* The text of DIR/NAME without its line end, NUL-terminated.  0 or -errno; -EOVERFLOW when
 * it does not fit into SIZE bytes. */
_must_check_ int sysfs_read_text(int dir, const char *name, char *buf, size_t size);
