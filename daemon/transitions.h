/* The actions of the table: each handles one event in one group of states, and returns
 * the state that the device is in afterwards. */
#pragma once

#include "daemon/event.h"

typedef enum device_state (*device_action)(struct device *d, const struct event_detail *e);

/* attach.c: from the first connection to the kernel's device */
enum device_state attach_start(struct device *d, const struct event_detail *e);
enum device_state attach_socket(struct device *d, const struct event_detail *e);
enum device_state attach_failed(struct device *d, const struct event_detail *e);
enum device_state attach_kernel_done(struct device *d, const struct event_detail *e);
enum device_state attach_kernel_failed(struct device *d, const struct event_detail *e);
enum device_state attach_abandon(struct device *d, const struct event_detail *e);

/* reconnect.c: attached, with links that die and are replaced */
enum device_state link_start(struct device *d, const struct event_detail *e);
enum device_state link_socket(struct device *d, const struct event_detail *e);
enum device_state link_failed(struct device *d, const struct event_detail *e);
enum device_state link_dead(struct device *d, const struct event_detail *e);
enum device_state link_kernel_done(struct device *d, const struct event_detail *e);
enum device_state link_kernel_failed(struct device *d, const struct event_detail *e);
enum device_state link_dead_timeout(struct device *d, const struct event_detail *e);
enum device_state device_lost(struct device *d, const struct event_detail *e);

/* detach.c */
enum device_state detach_begin(struct device *d, const struct event_detail *e);
enum device_state detach_later(struct device *d, const struct event_detail *e);
enum device_state detach_flushed(struct device *d, const struct event_detail *e);
enum device_state detach_link_dead(struct device *d, const struct event_detail *e);
enum device_state detach_kernel_done(struct device *d, const struct event_detail *e);
enum device_state detach_kernel_failed(struct device *d, const struct event_detail *e);
