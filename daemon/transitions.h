/* The actions of the table: each handles one event in one group of states, and returns
 * the state that the device is in afterwards. */
#pragma once

#include "daemon/event.h"

typedef enum device_state (*device_action)(struct device *d, const struct event_detail *e);

/* attach.c: from the first connection to the kernel's device */
enum device_state attach_start(struct device *d, const struct event_detail *e);
enum device_state attach_again(struct device *d, const struct event_detail *e);
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

/* What the actions of several files share. */
/* Is the kernel's device still ours?  Another program may have disconnected it.  1; 0: no
 * longer; -errno: that cannot be found out now, for want of descriptors or memory.  Opens files
 * the first time only. */
int link_still_attached(struct device *d);
/* RECONFIGURE gives a socket only to a link that the kernel has marked dead, and silently
 * drops it otherwise: does it know of as many deaths as we do?  If not, an EV_LINK_DEAD will
 * come, at the latest from a timer. */
bool links_settled(struct device *d);
/* Connections that the kernel was given in vain, or is not to be given any more.  It may have
 * taken some before it failed: those die there, too. */
void links_take_back(struct device *d);
/* Set back what a move has changed in the kernel, once links live. */
void links_restore(struct device *d);
void links_grow(struct device *d);
/* It was about to be detached, and stays: go on with what its links need. */
enum device_state links_resume(struct device *d);

/* move.c: a new server beside the old one */
enum device_state move_begin(struct device *d, const struct event_detail *e);
enum device_state move_candidate(struct device *d, const struct event_detail *e);
enum device_state move_candidate_failed(struct device *d, const struct event_detail *e);

/* move_switch.c: from one to the other */
enum device_state move_switch(struct device *d, const struct event_detail *e);
enum device_state move_link_dead(struct device *d, const struct event_detail *e);
enum device_state move_kernel_done(struct device *d, const struct event_detail *e);
enum device_state move_kernel_failed(struct device *d, const struct event_detail *e);
enum device_state move_checked(struct device *d, const struct event_detail *e);

/* detach.c */
/* Somebody asks for it, and waits among d->detachers.  Those who would have to be forced are
 * told before anything changes, where that can be seen at once. */
void detach_ask(struct device *d, bool force);
enum device_state detach_begin(struct device *d, const struct event_detail *e);
enum device_state detach_hurry(struct device *d, const struct event_detail *e);
enum device_state detach_later(struct device *d, const struct event_detail *e);
enum device_state detach_go_on(struct device *d, const struct event_detail *e);
enum device_state detach_link_dead(struct device *d, const struct event_detail *e);
enum device_state detach_kernel_done(struct device *d, const struct event_detail *e);
enum device_state detach_kernel_failed(struct device *d, const struct event_detail *e);
