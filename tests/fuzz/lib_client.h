/* A client of the library that does what a few bytes say, and holds the library to its
 * promises: errors are told and printable, callbacks are freed once and not called after
 * that, data stays in its buffer, and the session ends when the server does. */
#pragma once

#include <libnbd.h>
#include <stddef.h>
#include <stdint.h>

/* PLAN: two bytes of settings, then calls of two bytes each, which number and argument. */
#define PLAN_SETTINGS 2
#define PLAN_CALLS_MAX 64

/* A callback that was handed to the library. */
struct watch {
	struct watch *next;
	unsigned calls;
	int freed;			/* how often */
	int ret;			/* what the callback returns */
	int is_completion, issued;
	const uint8_t *buf;		/* of a read: where chunks must lie */
	uint64_t offset, count;
};

/* Memory that lives as long as the handle. */
struct block {
	struct block *next;
	_Alignas(16) uint8_t data[];
};

struct client {
	struct nbd_handle *h;
	struct watch *watches;
	struct block *blocks;
	int64_t cookies[PLAN_CALLS_MAX];
	size_t n_cookies;
};

/* Connect over FD by PLAN, make its calls, and see the session to its end. */
void client_run(const uint8_t *plan, size_t size, int fd);

/* For the calls: memory, the result of a call, and reading what the library has handed
 * out. */
void *client_alloc(struct client *c, size_t size);
void client_check(struct client *c, int64_t result);
void client_touch(const void *data, size_t len);

/* Callbacks: what one returns by the argument, a new one, what each calls first. */
int client_ret(uint8_t argument);
struct watch *client_watch(struct client *c, int ret);
struct watch *client_called(void *data);
void client_on_free(void *data);

#define CLIENT_CALLBACK(type, function, w) \
	((nbd_##type##_callback) { .callback = (function), .user_data = (w), \
				   .free = client_on_free })

/* A completion callback for the call that is being made, *RET; or none, by the argument.
 * When the call has returned RESULT, client_issued is told. */
nbd_completion_callback client_completion(struct client *c, uint8_t argument,
					  struct watch **ret);
void client_issued(struct client *c, struct watch *w, int64_t result);

/* CALL has client_completion(c, a, &w) among its arguments. */
#define CLIENT_ISSUE(call) do {			\
	struct watch *w;			\
	int64_t result = (call);		\
						\
	client_issued(c, w, result);		\
} while (0)

/* The command (lib_calls.c) or, with 0x80, option and the like (lib_calls_opt.c) of this
 * NUMBER, any; ARGUMENT chooses offset, count, flags and such. */
void client_call(struct client *c, uint8_t number, uint8_t argument);
void client_option_call(struct client *c, uint8_t number, uint8_t argument);
