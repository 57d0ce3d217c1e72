/* A daemon that was started in the initramfs follows the system into its root. */
#pragma once

#include <systemd/sd-event.h>

/* Nothing to do when this is no initramfs.  0 or -errno. */
int newroot_watch(sd_event *event);
