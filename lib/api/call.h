/* What every public entry point does before and after its work (see gen.py). */
#pragma once

#include <errno.h>
#include <string.h>

#include "lib/api/calls.h"
#include "lib/session/session.h"

#define PUBLIC __attribute__((visibility("default")))

static inline void call_enter(struct nbd_handle *h, const struct call *call)
{
	pthread_mutex_lock(&h->lock);
	h->call = call;
}

static inline void call_leave(struct nbd_handle *h)
{
	h->call = NULL;
	pthread_mutex_unlock(&h->lock);
}

static inline bool call_logged(struct nbd_handle *h)
{
	return __builtin_expect(h->debug, false);
}

bool call_wrong_state(struct nbd_handle *h, const struct call *call);

/* Each: true, or false with the error set. */
static inline bool call_permitted(struct nbd_handle *h, const struct call *call)
{
	enum phase p = atomic_load_explicit(&h->phase, memory_order_relaxed);

	return __builtin_expect((phase_states(p) & call->states) != 0, true) ||
	       call_wrong_state(h, call);
}

static inline bool call_pointer(const struct call *call, const void *p, const char *name)
{
	if (__builtin_expect(p != NULL, true))
		return true;
	error_set(call->name, EFAULT, "%s cannot be NULL", name);
	return false;
}

/* A callback that is wholly zero is none; one that has only a free is one that does nothing. */
#define CALLBACK_GIVEN(cb) ((cb).callback ? (void *)(cb).callback : (void *)(cb).free)

bool call_enum(const struct call *call, int value, int count, const char *name);
bool call_flags(const struct call *call, uint32_t value, uint32_t mask, const char *name);

/* The end of a call in the debug log. */
void call_log_leave_number(struct nbd_handle *h, int64_t ret);
void call_log_leave_string(struct nbd_handle *h, const char *ret);
void call_log_leave_pointer(struct nbd_handle *h, const void *ret);

#define DEBUG_TEXT_MAX 256

/* An argument in the debug log: quoted and escaped. */
const char *debug_string(char *dst, const char *text);
const char *debug_strv(char *dst, char **list);
#define DEBUG_STRING(s)	debug_string((char[DEBUG_TEXT_MAX]) {}, (s))
#define DEBUG_STRV(l)	debug_strv((char[DEBUG_TEXT_MAX]) {}, (l))

/* Replace the string at *FIELD by a copy: 0, or -1 with the error set. */
int call_set_string(struct nbd_handle *h, char **field, const char *value);
/* A copy for the caller; NULL with the error set. */
char *call_copy_string(struct nbd_handle *h, const char *value);

/* opt.c: start an option on the user's behalf; wait for its end, its failure is an error.
 * 0, or -1 with the error set. */
int call_begin_option(struct nbd_handle *h, enum plan plan,
		      nbd_completion_callback *completion);
int call_wait_option(struct nbd_handle *h);
