/* A daemon that was started in the initramfs follows the system into its root. */
#pragma once

#include <systemd/sd-event.h>

/* 1; 0: nothing to do, for this is no initramfs; or -errno. */
int newroot_watch(sd_event *event);
