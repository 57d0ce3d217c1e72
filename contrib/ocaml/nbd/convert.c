/* OCaml values as C arguments, and a buffer that both see. */
#include "runtime.h"

#include <caml/unixsupport.h>
#include <caml/socketaddr.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#if OCAML_VERSION >= 50000
#define get_sockaddr caml_unix_get_sockaddr
#endif

#define ADDRESSES_MAX 64	/* that nbdd_connect_addresses takes */

static void invalid(const char *name, const char *why)
{
	char text[128];

	snprintf(text, sizeof(text), "'%s' %s", name, why);
	caml_invalid_argument(text);
}

void nbdml_check_string(value string, const char *name)
{
	if (!caml_string_is_c_safe(string))
		invalid(name, "contains a NUL character");
}

void nbdml_check_strings(value list, const char *name)
{
	for (; list != Val_emptylist; list = Field(list, 1))
		nbdml_check_string(Field(list, 0), name);
}

int nbdml_int(value integer, const char *name)
{
	intnat n = Long_val(integer);

	if (n < INT32_MIN || n > INT32_MAX)
		invalid(name, "out of range");
	return (int)n;
}

uint32_t nbdml_u32(value int64, const char *name)
{
	int64_t n = Int64_val(int64);

	if (n < 0 || n > UINT32_MAX)
		invalid(name, "out of range");
	return (uint32_t)n;
}

char *nbdml_string(value string)
{
	return strdup(String_val(string));
}

static size_t length(value list)
{
	size_t n = 0;

	for (; list != Val_emptylist; list = Field(list, 1))
		n++;
	return n;
}

char **nbdml_strings(value list)
{
	char **strings = calloc(length(list) + 1, sizeof(*strings));

	for (size_t i = 0; strings && list != Val_emptylist; list = Field(list, 1), i++) {
		strings[i] = nbdml_string(Field(list, 0));
		if (!strings[i]) {
			nbdml_strings_free(strings);
			return NULL;
		}
	}
	return strings;
}

void nbdml_strings_free(char **strings)
{
	for (char **s = strings; *s; s++)
		free(*s);
	free(strings);
}

void *nbdml_bytes(value bytes)
{
	size_t n = caml_string_length(bytes);
	void *copy = malloc(n ? n : 1);

	return copy ? memcpy(copy, Bytes_val(bytes), n) : NULL;
}

struct sockaddr_storage nbdml_sockaddr(value sockaddr, socklen_t *ret_len)
{
	struct sockaddr_storage out = { 0 };
	union sock_addr_union address;

	get_sockaddr(sockaddr, &address, ret_len);
	memcpy(&out, &address, *ret_len);
	return out;
}

void nbdml_check_addresses(value list)
{
	size_t n = length(list);
	socklen_t len;

	if (!n || n > ADDRESSES_MAX)
		invalid("addresses", "must be 1 to 64");
	for (; list != Val_emptylist; list = Field(list, 1))
		nbdml_sockaddr(Field(list, 0), &len);
}

struct nbdd_address *nbdml_addresses(value list, size_t *ret_n)
{
	size_t n = length(list);
	struct nbdd_address *out = calloc(n, sizeof(*out));

	for (size_t i = 0; out && i < n; i++, list = Field(list, 1))
		out[i].addr = nbdml_sockaddr(Field(list, 0), &out[i].len);
	*ret_n = n;
	return out;
}

/* A slice is { buffer; off; len }, as a Cstruct.t is. */
static struct iovec slice(value v)
{
	struct caml_ba_array *buffer = Caml_ba_array_val(Field(v, 0));
	intnat off = Long_val(Field(v, 1)), len = Long_val(Field(v, 2));

	if (off < 0 || len < 0 || off > buffer->dim[0] || len > buffer->dim[0] - off)
		invalid("slices", "go beyond their buffer");
	return (struct iovec){ (uint8_t *)buffer->data + off, (size_t)len };
}

void nbdml_check_slices(value list)
{
	for (; list != Val_emptylist; list = Field(list, 1))
		slice(Field(list, 0));
}

struct iovec *nbdml_slices(value list, size_t *ret_n)
{
	size_t n = length(list);
	struct iovec *out = malloc((n + 1) * sizeof(*out));

	for (size_t i = 0; out && i < n; i++, list = Field(list, 1))
		out[i] = slice(Field(list, 0));
	*ret_n = n;
	return out;
}

/* NBD.Buffer: a Bigarray of characters, whose memory does not move. */
value nbdml_buffer_of_bytes(value bytes)
{
	CAMLparam1(bytes);
	CAMLlocal1(v);
	intnat n = (intnat)caml_string_length(bytes);

	v = caml_ba_alloc_dims(CAML_BA_CHAR | CAML_BA_C_LAYOUT, 1, NULL, n);
	memcpy(Caml_ba_data_val(v), Bytes_val(bytes), (size_t)n);
	CAMLreturn(v);
}

value nbdml_buffer_to_bytes(value v)
{
	CAMLparam1(v);

	CAMLreturn(caml_alloc_initialized_string(
		(mlsize_t)Caml_ba_array_val(v)->dim[0], Caml_ba_data_val(v)));
}
