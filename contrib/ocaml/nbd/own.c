/* Of nbdd.h, what does not fit the generator. */
#include "runtime.h"

static value option(const char *text)
{
	CAMLparam0();
	CAMLlocal2(some, string);

	if (!text)
		CAMLreturn(Val_int(0));
	string = caml_copy_string(text);
	some = caml_alloc_small(1, 0);
	Field(some, 0) = string;
	CAMLreturn(some);
}

/* The fields in the order of NBDD.uri. */
static value uri_value(const struct nbdd_uri *u)
{
	CAMLparam0();
	CAMLlocal2(v, field);
	const char *const texts[] = {
		u->host, u->port, u->socket_path, u->username, u->tls_certificates,
		u->tls_psk_file, u->tls_hostname, u->tls_priority,
	};
	int n = 0;

	v = caml_alloc(14, 0);
	Store_field(v, n++, Val_int(u->transport));
	Store_field(v, n++, Val_bool(u->tls));
	field = caml_copy_string(u->export_name);
	Store_field(v, n++, field);
	for (size_t i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
		field = option(texts[i]);
		Store_field(v, n++, field);
	}
	Store_field(v, n++, Val_bool(u->verify_peer));
	field = caml_copy_int64(u->vsock_cid);
	Store_field(v, n++, field);
	field = caml_copy_int64(u->vsock_port);
	Store_field(v, n++, field);
	CAMLreturn(v);
}

value nbdml_uri_parse(value text)
{
	CAMLparam1(text);
	CAMLlocal1(v);
	struct nbdd_uri *u;

	nbdml_check_string(text, "uri");
	u = nbdd_uri_parse(String_val(text));
	if (!u)
		nbdml_raise(nbdml_error());
	v = uri_value(u);
	nbdd_uri_free(u);
	CAMLreturn(v);
}
