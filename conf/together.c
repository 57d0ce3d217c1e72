/* Do the keys of a device fit together? */
#include <errno.h>
#include <string.h>

#include "conf/internal.h"

bool device_keys_given(const struct device_keys *k, const char *name)
{
	return k->set & conf_key_bit(conf_key_find(name, NULL));
}

static bool uri_asks_for_tls(const struct device_keys *k)
{
	return k->uri && strncmp(k->uri, "nbds", 4) == 0;
}

static bool no_server(const struct device_keys *k)
{
	return !k->uri && !k->n_addresses;
}

static bool two_servers(const struct device_keys *k)
{
	return k->uri && k->n_addresses;
}

static bool port_beside_uri(const struct device_keys *k)
{
	return k->uri && device_keys_given(k, "port");
}

static bool tls_uri_without_tls(const struct device_keys *k)
{
	return uri_asks_for_tls(k) && device_keys_given(k, "tls") && k->tls == CONF_TLS_OFF;
}

bool device_keys_have_files(const struct device_keys *k)
{
	return k->tls_ca_file || k->tls_cert_file || k->tls_key_file;
}

static bool tls_keys_without_tls(const struct device_keys *k)
{
	bool any = k->tls_certificates || device_keys_have_files(k) || k->tls_psk_file ||
		   k->tls_username || k->tls_hostname || k->tls_priority;

	/* Off in so many words: then they are [defaults]' or kept for later. */
	return any && k->tls == CONF_TLS_OFF && !device_keys_given(k, "tls") &&
	       !uri_asks_for_tls(k);
}

static bool two_credentials(const struct device_keys *k)
{
	return k->tls_certificates && k->tls_psk_file;
}

static bool files_and_directory(const struct device_keys *k)
{
	return device_keys_have_files(k) && k->tls_certificates;
}

static bool files_and_psk(const struct device_keys *k)
{
	return device_keys_have_files(k) && k->tls_psk_file;
}

static bool delays_cross(const struct device_keys *k)
{
	return k->reconnect_delay_usec > k->reconnect_delay_max_usec;
}

static bool no_time_to_answer(const struct device_keys *k)
{
	return k->keepalive_usec && k->keepalive_timeout_usec &&
	       k->keepalive_usec >= k->keepalive_timeout_usec;
}

static bool preinit_without_size(const struct device_keys *k)
{
	return k->preinit && !k->size;
}

static bool preinit_with_tls(const struct device_keys *k)
{
	return k->preinit && (k->tls != CONF_TLS_OFF || uri_asks_for_tls(k));
}

static const struct {
	bool (*applies)(const struct device_keys *k);
	const char *text;
} conflicts[] = {
	{ no_server, "no server is named; uri or addresses is needed" },
	{ two_servers, "uri and addresses are both set; allowed is one of them" },
	{ port_beside_uri, "port does not go with uri; write the port into the URI" },
	{ tls_uri_without_tls, "tls is off but the URI asks for TLS; "
			       "write nbd instead of nbds, or leave tls out" },
	{ tls_keys_without_tls,
	  "TLS is set up but not on; allowed are tls=allow, require, or off to say so" },
	{ preinit_without_size, "preinit is set without size, which no handshake tells then" },
	{ preinit_with_tls, "preinit does not go with TLS, which begins in the handshake" },
	{ two_credentials, "tls-certificates and tls-psk-file are both set; "
			   "allowed is one of them" },
	{ files_and_directory, "tls-ca-file, tls-cert-file or tls-key-file is set beside "
			       "tls-certificates; allowed are the files or the directory" },
	{ files_and_psk, "tls-ca-file, tls-cert-file or tls-key-file is set beside "
			 "tls-psk-file; allowed are certificates or a shared key" },
	{ delays_cross, "reconnect-delay is longer than reconnect-delay-max; "
			"allowed is at most that" },
	{ no_time_to_answer, "keepalive is not shorter than keepalive-timeout; "
			     "a probe needs time for its answer" },
};

int device_keys_check(const struct device_keys *k, char error[static CONF_ERROR_MAX])
{
	for (size_t i = 0; i < ARRAY_SIZE(conflicts); i++)
		if (conflicts[i].applies(k))
			return conf_fail(error, -EINVAL, "%s", conflicts[i].text);
	return 0;
}
