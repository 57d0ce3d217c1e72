#include "lib/api/call.h"

#include <stdlib.h>
#include <unistd.h>

#include "lib/io/tls_credentials.h"
#include "lib/io/tls_files.h"

int api_set_tls(struct nbd_handle *h, int tls)
{
	h->settings.tls = tls;
	return 0;
}

int api_get_tls(struct nbd_handle *h)
{
	return h->settings.tls;
}

int api_get_tls_negotiated(struct nbd_handle *h)
{
	return h->export.tls;
}

int api_set_tls_certificates(struct nbd_handle *h, const char *dir)
{
	return call_set_string(h, &h->settings.tls_certificates, dir);
}

int api_set_tls_ca_file(struct nbd_handle *h, const char *filename)
{
	return call_set_string(h, &h->settings.tls_files.ca, filename);
}

int api_set_tls_certificate_file(struct nbd_handle *h, const char *filename)
{
	return call_set_string(h, &h->settings.tls_files.certificate, filename);
}

int api_set_tls_key_file(struct nbd_handle *h, const char *filename)
{
	return call_set_string(h, &h->settings.tls_files.key, filename);
}

int api_set_tls_username(struct nbd_handle *h, const char *username)
{
	return call_set_string(h, &h->settings.tls_username, username);
}

char *api_get_tls_username(struct nbd_handle *h)
{
	char login[256];
	int r;

	if (h->settings.tls_username)
		return call_copy_string(h, h->settings.tls_username);
	r = getlogin_r(login, sizeof(login));
	if (r == 0)
		return call_copy_string(h, login);
	session_error(h, r, "getlogin_r");
	return NULL;
}

int api_set_tls_psk_file(struct nbd_handle *h, const char *filename)
{
	return call_set_string(h, &h->settings.tls_psk_file, filename);
}

int api_set_tls_hostname(struct nbd_handle *h, const char *hostname)
{
	return call_set_string(h, &h->settings.tls_hostname, hostname);
}

char *api_get_tls_hostname(struct nbd_handle *h)
{
	return call_copy_string(h, h->settings.tls_hostname ? h->settings.tls_hostname : "");
}

int api_set_tls_priority(struct nbd_handle *h, const char *priority)
{
	return call_set_string(h, &h->settings.tls_priority, priority);
}

char *api_get_tls_priority(struct nbd_handle *h)
{
	return call_copy_string(h, h->settings.tls_priority ? h->settings.tls_priority
							    : "NORMAL");
}

int api_supports_tls(struct nbd_handle *h)
{
	return 1;
}

int api_get_tls_info(struct nbd_handle *h, struct nbdd_tls_info *ret)
{
	if (!h->export.tls)
		return session_error(h, EINVAL, "TLS is not active");
	tls_info(&h->transport, ret);
	return 0;
}

int api_set_tls_credentials(struct nbd_handle *h, const struct nbdd_tls_credentials *c)
{
	h->settings.tls_credentials = c;
	return 0;
}

/* Does gnutls take them? */
static int try_credentials(const struct nbdd_tls_credentials *c, struct tls_config *config,
			   char *message)
{
	struct tls_credentials k;
	int r;

	config->credentials = c;
	r = tls_credentials_load(&k, config, message);
	if (r == 0)
		tls_credentials_free(&k);
	return r;
}

struct nbdd_tls_credentials *api_read_tls_credentials(struct nbd_handle *h)
{
	struct nbdd_tls_credentials *c = calloc(1, sizeof(*c));
	struct tls_config config = starttls_config(h);
	char message[TLS_MESSAGE_MAX] = "no memory";
	int r = c ? tls_files_read(c, &config, message) : -ENOMEM;

	if (r == 0 && !c->ca.data && !c->psk.data && (c->where || config.verify_peer))
		r = tls_files_system_trust(&c->ca, message);
	if (r == 0)
		r = try_credentials(c, &config, message);
	if (r == 0)
		return c;
	api_free_tls_credentials(c);
	session_error(h, -r, "%s", message);
	return NULL;
}

void api_free_tls_credentials(struct nbdd_tls_credentials *c)
{
	if (c)
		tls_files_wipe(c);
	free(c);
}
