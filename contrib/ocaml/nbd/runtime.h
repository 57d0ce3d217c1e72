/* What the generated stubs stand on: the handle, callbacks, conversions. */
#pragma once

#define CAML_NAME_SPACE
#include <caml/alloc.h>
#include <caml/bigarray.h>
#include <caml/callback.h>
#include <caml/custom.h>
#include <caml/fail.h>
#include <caml/memory.h>
#include <caml/mlvalues.h>
#include <caml/signals.h>
#include <caml/version.h>

#include <libnbd.h>
#include <nbdd.h>

/* Every call that takes the handle's lock runs with OCaml's runtime lock released, whoever
 * holds it, so that a callback can take it: the order is always handle, then runtime.
 * Signal handlers run before, at the start of the stub: an exception must not jump out of
 * the library. */
#define WITHOUT_RUNTIME(call) do {			\
		caml_enter_blocking_section_no_pending();	\
		call;					\
		caml_leave_blocking_section();		\
	} while (0)

/* handle.c: a handle is closed when the last call on it is over. */

/* The library's handle, for one call; NBD.Closed if there is none any more. */
struct nbd_handle *nbdml_enter(value handle, const char *call);
/* The end of that call. */
void nbdml_leave(value handle);

/* What a stub allocates between both; raises Out_of_memory. */
void *nbdml_need(value handle, void *memory);

/* Raises NBD.Error with what this thread's last error was, as told by nbdml_error. */
value nbdml_error(void);
void nbdml_raise(value error) Noreturn;

/* callback.c: OCaml functions, called with the runtime lock released. */

/* user_data that keeps FN and what is in KEPT alive until nbdml_callback_free. */
void *nbdml_callback(value fn, value kept);
void nbdml_callback_free(void *user_data);

int nbdml_call_chunk(void *user_data, const void *subbuf, size_t count, uint64_t offset,
		     unsigned status, int *error);
int nbdml_call_completion(void *user_data, int *error);
int nbdml_call_debug(void *user_data, const char *context, const char *msg);
int nbdml_call_extent(void *user_data, const char *metacontext, uint64_t offset,
		      uint32_t *entries, size_t nr_entries, int *error);
int nbdml_call_extent64(void *user_data, const char *metacontext, uint64_t offset,
			nbd_extent *entries, size_t nr_entries, int *error);
int nbdml_call_list(void *user_data, const char *name, const char *description);
int nbdml_call_context(void *user_data, const char *name);

/* convert.c: values that cannot be passed on are Invalid_argument, before anything is
 * allocated. */
void nbdml_check_string(value string, const char *name);
void nbdml_check_strings(value list, const char *name);
void nbdml_check_addresses(value list);
void nbdml_check_slices(value list);
int nbdml_int(value integer, const char *name);
uint32_t nbdml_u32(value int64, const char *name);

char *nbdml_string(value string);
char **nbdml_strings(value list);
void nbdml_strings_free(char **strings);
void *nbdml_bytes(value bytes);		/* a copy: OCaml's memory may move */

struct sockaddr_storage nbdml_sockaddr(value sockaddr, socklen_t *ret_len);
struct nbdd_address *nbdml_addresses(value list, size_t *ret_n);
struct iovec *nbdml_slices(value list, size_t *ret_n);
