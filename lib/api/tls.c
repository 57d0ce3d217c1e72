#include "lib/api/call.h"

#include <unistd.h>

#include "lib/io/tls.h"

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
