/* What a block device is made of, as /sys tells it: the disk of a partition, and what LVM,
 * LUKS and RAID have below them. */
#pragma once

#include <sys/types.h>

typedef void (*disk_fn)(const char *name, void *userdata);	/* nbd0, dm-1 */

/* Call FN for each, the device itself included, but for no partition.  SYS: /sys. */
void disks_of_device(const char *sys, dev_t device, disk_fn fn, void *userdata);
/* The same for what is mounted on WHERE. */
void disks_of_mount(const char *sys, const char *where, disk_fn fn, void *userdata);
