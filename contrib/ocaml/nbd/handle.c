/* The handle as an OCaml value.
 *
 * `users` counts the calls under way, and one for being open.  NBD.close, by hand or by the
 * collector (Gc.finalise in NBD.create), sets CLOSED and gives up that one; whoever takes the
 * count to zero closes the library's handle.  So a callback may close the handle whose call
 * it is in, and a thread the handle that another one waits on. */
#include "runtime.h"

#include <caml/unixsupport.h>
#include <stdatomic.h>
#include <stdlib.h>

#define CLOSED 0x80000000u

#if OCAML_VERSION >= 50000
#define unix_error_of_code caml_unix_error_of_code
#define code_of_unix_error caml_unix_code_of_unix_error
#endif

/* Handles that are garbage hold sockets: a hundred of them are worth a collection. */
#define HANDLES_PER_COLLECTION 100

struct handle {
	struct nbd_handle *nbd;
	atomic_uint users;
};

static struct handle *handle_of(value v)
{
	return *(struct handle **)Data_custom_val(v);
}

/* Runs within the collector, where nothing may be called: NBD.create's finaliser has closed
 * the handle before.  At the end of the program it may not have; then all ends anyway. */
static void finalize(value v)
{
	struct handle *handle = handle_of(v);

	if (handle && atomic_load(&handle->users) == CLOSED)
		free(handle);
}

static struct custom_operations operations = {
	.identifier = "nbdd.NBD.t",
	.finalize = finalize,
	.compare = custom_compare_default,
	.hash = custom_hash_default,
	.serialize = custom_serialize_default,
	.deserialize = custom_deserialize_default,
	.compare_ext = custom_compare_ext_default,
	.fixed_length = custom_fixed_length_default,
};

value nbdml_create(value unit)
{
	CAMLparam1(unit);
	CAMLlocal1(v);
	struct handle *handle;

	v = caml_alloc_custom(&operations, sizeof(handle), 1, HANDLES_PER_COLLECTION);
	*(struct handle **)Data_custom_val(v) = NULL;
	handle = malloc(sizeof(*handle));
	if (!handle)
		caml_raise_out_of_memory();
	atomic_init(&handle->users, CLOSED);
	*(struct handle **)Data_custom_val(v) = handle;
	handle->nbd = nbd_create();
	if (!handle->nbd)
		nbdml_raise(nbdml_error());
	atomic_store(&handle->users, 1);
	CAMLreturn(v);
}

static void drop(struct handle *handle)
{
	if (atomic_fetch_sub(&handle->users, 1) == (CLOSED | 1))
		WITHOUT_RUNTIME(nbd_close(handle->nbd));
}

value nbdml_close(value v)
{
	CAMLparam1(v);
	struct handle *handle = handle_of(v);

	if (!(atomic_fetch_or(&handle->users, CLOSED) & CLOSED))
		drop(handle);
	CAMLreturn(Val_unit);
}

static void raise_closed(const char *call)
{
	caml_raise_with_string(*caml_named_value("nbdd.NBD.Closed"), call);
}

struct nbd_handle *nbdml_enter(value v, const char *call)
{
	struct handle *handle = handle_of(v);
	unsigned users = atomic_load(&handle->users);

	do {
		if (users & CLOSED)
			raise_closed(call);
	} while (!atomic_compare_exchange_weak(&handle->users, &users, users + 1));
	return handle->nbd;
}

void nbdml_leave(value v)
{
	CAMLparam1(v);

	drop(handle_of(v));
	CAMLreturn0;
}

void *nbdml_need(value v, void *memory)
{
	if (!memory) {
		nbdml_leave(v);
		caml_raise_out_of_memory();
	}
	return memory;
}

value nbdml_error(void)
{
	CAMLparam0();
	CAMLlocal3(text, code, error);
	const char *message = nbd_get_error();
	int number = nbd_get_errno();

	text = caml_copy_string(message ? message : "unknown error");
	code = Val_int(0);
	if (number) {
		error = unix_error_of_code(number);
		code = caml_alloc_small(1, 0);
		Field(code, 0) = error;
	}
	error = caml_alloc_small(2, 0);
	Field(error, 0) = text;
	Field(error, 1) = code;
	CAMLreturn(error);
}

void nbdml_raise(value error)
{
	value arguments[2] = { Field(error, 0), Field(error, 1) };

	caml_raise_with_args(*caml_named_value("nbdd.NBD.Error"), 2, arguments);
}

value nbdml_unix_error_of_errno(value number)
{
	return unix_error_of_code(Int_val(number));
}

value nbdml_errno_of_unix_error(value error)
{
	return Val_int(code_of_unix_error(error));
}
