#include "lib/io/tls_credentials.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lib/io/tls_files.h"
#include "lib/util/cleanup.h"

int tls_fail(char *message, int r, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(message, TLS_MESSAGE_MAX, format, ap);
	va_end(ap);
	return r;
}

#define _cleanup_credentials_ _cleanup_(tls_files_wipe)

static gnutls_datum_t datum(const struct nbdd_tls_data *d)
{
	return (gnutls_datum_t) { d->data, (unsigned)d->size };
}

static const char *bad_how(int gnutls_error)
{
	return gnutls_error < 0 ? gnutls_strerror(gnutls_error) : "there is nothing in it";
}

static int bad_file(char *message, const char *dir, const char *name, int gnutls_error)
{
	return tls_fail(message, -EINVAL, "TLS: %s/%s cannot be used: %s",
			dir ? dir : "the system's trust store", name, bad_how(gnutls_error));
}

static int bad_named(char *message, const char *path, int gnutls_error)
{
	return tls_fail(message, -EINVAL, "TLS: %s cannot be used: %s", path,
			bad_how(gnutls_error));
}

static int use_ca(struct tls_credentials *k, const struct nbdd_tls_data *ca,
		  const struct tls_named_files *files, char *message)
{
	gnutls_datum_t d = datum(ca);
	int n = gnutls_certificate_set_x509_trust_mem(k->x509, &d, GNUTLS_X509_FMT_PEM);

	if (n > 0)
		return 0;
	return files->ca ? bad_named(message, files->ca, n)
			 : bad_file(message, k->where, TLS_CA_CERT, n);
}

static int use_crl(struct tls_credentials *k, const struct nbdd_tls_data *crl, char *message)
{
	gnutls_datum_t d = datum(crl);
	int n = gnutls_certificate_set_x509_crl_mem(k->x509, &d, GNUTLS_X509_FMT_PEM);

	return n > 0 ? 0 : bad_file(message, k->where, TLS_CA_CRL, n);
}

static int use_client(struct tls_credentials *k, const struct nbdd_tls_credentials *c,
		      const struct tls_named_files *files, char *message)
{
	gnutls_datum_t cert = datum(&c->certificate), key = datum(&c->key);
	int r = gnutls_certificate_set_x509_key_mem(k->x509, &cert, &key, GNUTLS_X509_FMT_PEM);

	if (r >= 0)
		return 0;
	if (files->certificate || files->key)
		return bad_named(message, files->certificate ? files->certificate : files->key,
				 r);
	return tls_fail(message, -EINVAL, "TLS: %s/%s and %s cannot be used: %s", k->where,
			TLS_CLIENT_CERT, TLS_CLIENT_KEY, gnutls_strerror(r));
}

static int use_system_trust(struct tls_credentials *k, char *message)
{
	int n = gnutls_certificate_set_x509_system_trust(k->x509);

	return n >= 0 || n == GNUTLS_E_UNIMPLEMENTED_FEATURE || !k->where
		? 0 : bad_file(message, k->where, TLS_CA_CERT, n);
}

static int use_x509(struct tls_credentials *k, const struct nbdd_tls_credentials *c,
		    const struct tls_config *config, char *message)
{
	int r = 0;

	if (gnutls_certificate_allocate_credentials(&k->x509) < 0)
		return tls_fail(message, -ENOMEM, "TLS: no memory for certificates");
	if (c->ca.data)
		r = use_ca(k, &c->ca, &config->files, message);
	else if (!config->credentials && (k->where || config->verify_peer))
		r = use_system_trust(k, message);
	else if (!k->where && !config->verify_peer &&
		 gnutls_anon_allocate_client_credentials(&k->anonymous) < 0)
		r = tls_fail(message, -ENOMEM, "TLS: no memory for credentials");
	if (r == 0 && c->crl.data)
		r = use_crl(k, &c->crl, message);
	if (r == 0 && c->certificate.data)
		r = use_client(k, c, &config->files, message);
	return r;
}

static int use_psk(struct tls_credentials *k, const struct nbdd_tls_credentials *c,
		   char *message)
{
	gnutls_datum_t key = datum(&c->psk);
	int r = gnutls_psk_allocate_client_credentials(&k->psk);

	if (r == 0)
		r = gnutls_psk_set_client_credentials(k->psk, k->username, &key,
						      GNUTLS_PSK_KEY_HEX);
	return r == 0 ? 0 : tls_fail(message, -EINVAL, "TLS: the pre-shared key in %s: %s",
				     k->where, gnutls_strerror(r));
}

void tls_credentials_free(struct tls_credentials *k)
{
	if (k->x509)
		gnutls_certificate_free_credentials(k->x509);
	if (k->psk)
		gnutls_psk_free_client_credentials(k->psk);
	if (k->anonymous)
		gnutls_anon_free_client_credentials(k->anonymous);
	free(k->where);
	free(k->username);
	*k = (struct tls_credentials) {};
}

static int copy_text(char **ret, const char *text, char *message)
{
	*ret = text ? strdup(text) : NULL;
	return *ret || !text ? 0 : tls_fail(message, -ENOMEM, "TLS: no memory");
}

static int use(struct tls_credentials *k, const struct nbdd_tls_credentials *c,
	       const struct tls_config *config, char *message)
{
	int r = copy_text(&k->where, c->where, message);

	if (r == 0)
		r = copy_text(&k->username, c->username, message);
	if (r < 0)
		return r;
	return c->psk.data ? use_psk(k, c, message) : use_x509(k, c, config, message);
}

int tls_credentials_load(struct tls_credentials *k, const struct tls_config *config,
			 char message[static TLS_MESSAGE_MAX])
{
	_cleanup_credentials_ struct nbdd_tls_credentials files = {};
	int r = config->credentials ? 0 : tls_files_read(&files, config, message);

	*k = (struct tls_credentials) {};
	if (r == 0)
		r = use(k, config->credentials ? config->credentials : &files, config, message);
	if (r < 0)
		tls_credentials_free(k);
	return r;
}
