/* OCaml functions as the library's callbacks.
 *
 * All of them are called, and freed, within a call of the library, hence with the runtime
 * lock released.  An exception cannot pass through the library: it is printed, and the
 * callback fails. */
#include "runtime.h"

#include <caml/printexc.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

/* An OCaml function and what its request keeps alive, as the fields of an OCaml block: the
 * block is a root for ever and used again, since to make and to end a root takes longer than
 * the rest of a request. */
struct callback {
	value cell;
	bool empty;		/* the block holds nothing any more */
	struct callback *next;	/* that is idle, too */
};

enum { FN, KEPT, CELL_SIZE };	/* FN is unit where there is none */

/* Of the whole process, whichever of its threads and domains they serve. */
static struct callback *idle;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct callback *take(void)
{
	struct callback *c;

	pthread_mutex_lock(&lock);
	c = idle;
	if (c)
		idle = c->next;
	pthread_mutex_unlock(&lock);
	return c;
}

static void put(struct callback *c)
{
	pthread_mutex_lock(&lock);
	c->next = idle;
	idle = c;
	pthread_mutex_unlock(&lock);
}

static struct callback *make(void)
{
	struct callback *c = malloc(sizeof(*c));

	if (!c)
		return NULL;
	c->cell = caml_alloc(CELL_SIZE, 0);
	caml_register_generational_global_root(&c->cell);
	return c;
}

void *nbdml_callback(value fn, value kept)
{
	CAMLparam2(fn, kept);
	struct callback *c = take();

	if (!c)
		c = make();
	if (c) {
		Store_field(c->cell, FN, fn);
		Store_field(c->cell, KEPT, kept);
		c->empty = false;
	}
	CAMLreturnT(void *, c);
}

static void clear(struct callback *c)
{
	Store_field(c->cell, FN, Val_unit);
	Store_field(c->cell, KEPT, Val_unit);
	c->empty = true;
}

void nbdml_callback_free(void *user_data)
{
	struct callback *c = user_data;

	if (!c->empty) {
		caml_leave_blocking_section();
		clear(c);
		caml_enter_blocking_section_no_pending();
	}
	put(c);
}

/* Call the function; what it returns, or -1 after an exception. */
static int call(void *user_data, const char *kind, int n, value arguments[])
{
	const struct callback *c = user_data;
	value result = caml_callbackN_exn(Field(c->cell, FN), n, arguments);
	char *text;

	if (!Is_exception_result(result))
		return Int_val(result);
	text = caml_format_exception(Extract_exception(result));
	fprintf(stderr, "libnbd: %s: uncaught OCaml exception: %s\n", kind,
		text ? text : "out of memory");
	caml_stat_free(text);
	return -1;
}

static value new_ref(int number)
{
	value ref = caml_alloc_small(1, 0);

	Field(ref, 0) = Val_int(number);
	return ref;
}

/* With an `int ref` as its last argument, which tells the error. */
static int call_with_error(void *user_data, const char *kind, int n, value arguments[],
			   int *error)
{
	int r;

	arguments[n - 1] = new_ref(*error);
	r = call(user_data, kind, n, arguments);
	*error = Int_val(Field(arguments[n - 1], 0));
	return r;
}

/* It is called once, and the request is over: what it held goes at once, since to take the
 * runtime lock again for that would cost a fifth of the request. */
int nbdml_call_completion(void *user_data, int *error)
{
	struct callback *c = user_data;
	int r = 0;

	caml_leave_blocking_section();
	if (Field(c->cell, FN) != Val_unit) {
		CAMLparam0();
		CAMLlocalN(arguments, 1);

		r = call_with_error(user_data, "completion", 1, arguments, error);
		CAMLdrop;
	}
	clear(c);
	caml_enter_blocking_section_no_pending();
	return r;
}

int nbdml_call_chunk(void *user_data, const void *subbuf, size_t count, uint64_t offset,
		     unsigned status, int *error)
{
	int r;

	caml_leave_blocking_section();
	{
		CAMLparam0();
		CAMLlocalN(arguments, 4);

		arguments[0] = caml_alloc_initialized_string(count, subbuf);
		arguments[1] = caml_copy_int64((int64_t)offset);
		arguments[2] = Val_int(status);
		r = call_with_error(user_data, "chunk", 4, arguments, error);
		CAMLdrop;
	}
	caml_enter_blocking_section_no_pending();
	return r;
}

int nbdml_call_debug(void *user_data, const char *context, const char *msg)
{
	int r;

	caml_leave_blocking_section();
	{
		CAMLparam0();
		CAMLlocalN(arguments, 2);

		arguments[0] = caml_copy_string(context ? context : "");
		arguments[1] = caml_copy_string(msg);
		r = call(user_data, "debug", 2, arguments);
		CAMLdrop;
	}
	caml_enter_blocking_section_no_pending();
	return r;
}

/* What a callback of block status is given, as OCaml has it. */
typedef value (*extents_fn)(const void *entries, size_t n);

static value numbers(const void *entries, size_t n)
{
	CAMLparam0();
	CAMLlocal2(array, item);
	const uint32_t *entry = entries;

	array = n ? caml_alloc(n, 0) : Atom(0);
	for (size_t i = 0; i < n; i++) {
		item = caml_copy_int64(entry[i]);
		Store_field(array, i, item);
	}
	CAMLreturn(array);
}

static value pairs(const void *entries, size_t n)
{
	CAMLparam0();
	CAMLlocal4(array, pair, length, flags);
	const nbd_extent *entry = entries;

	array = n ? caml_alloc(n, 0) : Atom(0);
	for (size_t i = 0; i < n; i++) {
		length = caml_copy_int64((int64_t)entry[i].length);
		flags = caml_copy_int64((int64_t)entry[i].flags);
		pair = caml_alloc_small(2, 0);
		Field(pair, 0) = length;
		Field(pair, 1) = flags;
		Store_field(array, i, pair);
	}
	CAMLreturn(array);
}

static int call_with_extents(void *user_data, const char *what, const char *metacontext,
			     uint64_t offset, extents_fn convert, const void *entries,
			     size_t n, int *error)
{
	int r;

	caml_leave_blocking_section();
	{
		CAMLparam0();
		CAMLlocalN(arguments, 4);

		arguments[0] = caml_copy_string(metacontext);
		arguments[1] = caml_copy_int64((int64_t)offset);
		arguments[2] = convert(entries, n);
		r = call_with_error(user_data, what, 4, arguments, error);
		CAMLdrop;
	}
	caml_enter_blocking_section_no_pending();
	return r;
}

int nbdml_call_extent(void *user_data, const char *metacontext, uint64_t offset,
		      uint32_t *entries, size_t nr_entries, int *error)
{
	return call_with_extents(user_data, "extent", metacontext, offset, numbers, entries,
				 nr_entries, error);
}

int nbdml_call_extent64(void *user_data, const char *metacontext, uint64_t offset,
			nbd_extent *entries, size_t nr_entries, int *error)
{
	return call_with_extents(user_data, "extent64", metacontext, offset, pairs, entries,
				 nr_entries, error);
}

int nbdml_call_list(void *user_data, const char *name, const char *description)
{
	int r;

	caml_leave_blocking_section();
	{
		CAMLparam0();
		CAMLlocalN(arguments, 2);

		arguments[0] = caml_copy_string(name);
		arguments[1] = caml_copy_string(description);
		r = call(user_data, "list", 2, arguments);
		CAMLdrop;
	}
	caml_enter_blocking_section_no_pending();
	return r;
}

int nbdml_call_context(void *user_data, const char *name)
{
	int r;

	caml_leave_blocking_section();
	{
		CAMLparam0();
		CAMLlocalN(arguments, 1);

		arguments[0] = caml_copy_string(name);
		r = call(user_data, "context", 1, arguments);
		CAMLdrop;
	}
	caml_enter_blocking_section_no_pending();
	return r;
}
