#include "lib/io/tls_reason.h"

#include <arpa/inet.h>
#include <errno.h>
#include <gnutls/x509.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "lib/io/tls_session.h"
#include "lib/util/escape.h"

#define NAMES_MAX 8		/* names of a certificate that are told */

/* What alerts mean where they end a connection ("RFC 8446", section 6.2). */
static const struct alert {
	int number;
	int error;
	const char *hint;
} alerts[] = {
	{ 116 /* certificate_required */, EKEYREJECTED, "the server wants a client certificate" },
	{ GNUTLS_A_HANDSHAKE_FAILURE, ENOTSUP,
	  "no TLS version, cipher or key exchange is common to both sides" },
	{ GNUTLS_A_BAD_CERTIFICATE, EKEYREJECTED, "the server refused the client certificate" },
	{ GNUTLS_A_UNKNOWN_CA, EKEYREJECTED,
	  "the server does not know the CA of the client certificate" },
	{ GNUTLS_A_CERTIFICATE_EXPIRED, EKEYEXPIRED, "the client certificate has expired" },
	{ GNUTLS_A_CERTIFICATE_REVOKED, EKEYREVOKED, "the client certificate is revoked" },
	{ GNUTLS_A_CERTIFICATE_UNKNOWN, EKEYREJECTED,
	  "the server refused the client certificate" },
	{ GNUTLS_A_ACCESS_DENIED, EACCES, "the server refused the client" },
	{ GNUTLS_A_PROTOCOL_VERSION, ENOTSUP, "the TLS versions do not match" },
	{ GNUTLS_A_INSUFFICIENT_SECURITY, ENOTSUP, "the server wants stronger ciphers" },
	{ GNUTLS_A_UNKNOWN_PSK_IDENTITY, EKEYREJECTED, "the server does not know the user" },
};

static const struct alert *find_alert(int number)
{
	for (size_t i = 0; i < ARRAY_SIZE(alerts); i++)
		if (alerts[i].number == number)
			return &alerts[i];
	return NULL;
}

static int alert_reason(gnutls_session_t session, char *message)
{
	int number = gnutls_alert_get(session);
	const char *name = gnutls_alert_get_name((gnutls_alert_description_t)number);
	const struct alert *a = find_alert(number);

	return tls_fail(message, a ? -a->error : -ECONNABORTED,
			"TLS: server sent alert %d: %s%s%s", number, name ? name : "unknown",
			a ? ": " : "", a ? a->hint : "");
}

int tls_peer_certificate(gnutls_session_t session, gnutls_x509_crt_t *ret)
{
	unsigned n;
	const gnutls_datum_t *chain = gnutls_certificate_get_peers(session, &n);
	int r;

	if (!chain || !n)
		return -ENOENT;
	r = gnutls_x509_crt_init(ret);
	if (r < 0)
		return r;
	r = gnutls_x509_crt_import(*ret, &chain[0], GNUTLS_X509_FMT_DER);
	if (r < 0)
		gnutls_x509_crt_deinit(*ret);
	return r;
}

static size_t add_name(char *dst, size_t size, size_t len, const char *name, size_t name_len)
{
	char shown[200];

	escape_text(shown, sizeof(shown), name, name_len);
	len += (size_t)snprintf(dst + len, size - len, "%s%s", len ? ", " : "", shown);
	return MIN(len, size - 1);
}

void tls_certificate_names(gnutls_x509_crt_t crt, char *dst, size_t size)
{
	char name[256], text[INET6_ADDRSTRLEN];
	size_t len = 0, n;

	for (unsigned i = 0; i < NAMES_MAX; i++) {
		int type;

		n = sizeof(name);
		type = gnutls_x509_crt_get_subject_alt_name(crt, i, name, &n, NULL);
		if (type == GNUTLS_E_REQUESTED_DATA_NOT_AVAILABLE)
			break;
		if (type == GNUTLS_SAN_DNSNAME)
			len = add_name(dst, size, len, name, strnlen(name, n));
		else if (type == GNUTLS_SAN_IPADDRESS && (n == 4 || n == 16) &&
			 inet_ntop(n == 4 ? AF_INET : AF_INET6, name, text, sizeof(text)))
			len = add_name(dst, size, len, text, strlen(text));
	}
	n = sizeof(name);
	if (!len && gnutls_x509_crt_get_dn_by_oid(crt, GNUTLS_OID_X520_COMMON_NAME, 0, 0, name,
						  &n) == 0)
		len = add_name(dst, size, len, name, n);
	if (!len)
		snprintf(dst, size, "nothing");
}

static void day(char *dst, size_t size, time_t when)
{
	struct tm tm;

	if (when == (time_t)-1 || !gmtime_r(&when, &tm) ||
	    !strftime(dst, size, "%Y-%m-%d %H:%M:%S UTC", &tm))
		snprintf(dst, size, "an unknown time");
}

static int wrong_name(const struct tls_attempt *a, gnutls_x509_crt_t crt, char *message)
{
	char names[350], wanted[120];

	tls_certificate_names(crt, names, sizeof(names));
	return tls_fail(message, -EKEYREJECTED, "TLS: server's certificate is for %s, not for %s",
			names, escape_text(wanted, sizeof(wanted), a->hostname,
					   strlen(a->hostname)));
}

static int certificate_reason(const struct tls_attempt *a, gnutls_x509_crt_t crt, char *message)
{
	unsigned status = gnutls_session_get_verify_cert_status(a->session);
	const char *where = a->keys->where ? a->keys->where : "the system's trust store";
	gnutls_datum_t text = {};
	char when[64];
	int r;

	if (status & GNUTLS_CERT_REVOKED)
		return tls_fail(message, -EKEYREVOKED, "TLS: server's certificate is revoked, by "
				"ca-crl.pem in %s", where);
	if (status & GNUTLS_CERT_SIGNER_NOT_FOUND)
		return tls_fail(message, -EKEYREJECTED, "TLS: server's certificate is signed by "
				"an unknown CA, none of those in %s", where);
	if (status & GNUTLS_CERT_EXPIRED) {
		day(when, sizeof(when), gnutls_x509_crt_get_expiration_time(crt));
		return tls_fail(message, -EKEYEXPIRED, "TLS: server's certificate or its CA's has "
				"expired; the server's is valid until %s", when);
	}
	if (status & GNUTLS_CERT_NOT_ACTIVATED) {
		day(when, sizeof(when), gnutls_x509_crt_get_activation_time(crt));
		return tls_fail(message, -EKEYREJECTED, "TLS: server's certificate is not valid "
				"before %s", when);
	}
	if (status & GNUTLS_CERT_UNEXPECTED_OWNER && a->hostname)
		return wrong_name(a, crt, message);
	r = gnutls_certificate_verification_status_print(status, GNUTLS_CRT_X509, &text, 0);
	tls_fail(message, 0, "TLS: server's certificate: %s",
		 r == 0 ? (char *)text.data : "cannot be verified");
	gnutls_free(text.data);
	return -EKEYREJECTED;
}

static int verification_reason(const struct tls_attempt *a, char *message)
{
	gnutls_x509_crt_t crt;
	int r;

	if (tls_peer_certificate(a->session, &crt) < 0)
		return tls_fail(message, -EKEYREJECTED, "TLS: server's certificate cannot be "
				"verified");
	r = certificate_reason(a, crt, message);
	gnutls_x509_crt_deinit(crt);
	return r;
}

/* With a pre-shared key, whatever the server dislikes is most likely the key. */
static int psk_reason(const struct tls_attempt *a, int error, char *message)
{
	char name[200], why[TLS_MESSAGE_MAX] = "it hung up";

	escape_text(name, sizeof(name), a->keys->username, strlen(a->keys->username));
	if (error == GNUTLS_E_FATAL_ALERT_RECEIVED)
		alert_reason(a->session, why);
	return tls_fail(message, -EKEYREJECTED, "TLS: server refused the pre-shared key of user "
			"'%s' (%.200s)", name, why);
}

/* Is there a client certificate?  It need not have been sent. */
static bool has_own(const struct tls_attempt *a)
{
	gnutls_x509_crt_t *crts = NULL;
	unsigned n = 0;

	if (gnutls_certificate_get_x509_crt(a->keys->x509, 0, &crts, &n) < 0)
		return false;
	for (unsigned i = 0; i < n; i++)
		gnutls_x509_crt_deinit(crts[i]);
	gnutls_free(crts);
	return n > 0;
}

/* A server that dislikes the client's certificate may say so only by hanging up, WHEN is
 * about the handshake.  0 when that says nothing of certificates. */
static int certificate_hint(const struct tls_attempt *a, const char *when, char *message)
{
	const char *where = a->keys->where ? a->keys->where : "any of the usual directories";
	const char *why = "it asked for a client certificate, and there is none in";

	if (!a->keys->x509 || !a->certificate_wanted)
		return 0;
	if (gnutls_certificate_get_ours(a->session))
		why = "it may not accept the client certificate in";
	else if (has_own(a))
		why = "it asked for a client certificate of a CA that did not make the one in";
	return tls_fail(message, -EKEYREJECTED, "TLS: server hung up %s the TLS handshake: %s %s",
			when, why, where);
}

int tls_hang_up_reason(struct transport *t, char message[static TLS_MESSAGE_MAX])
{
	const struct tls *s = t->tls;
	const struct tls_attempt a = { .session = s->session, .keys = &s->keys,
				       .certificate_wanted = s->certificate_wanted };

	return certificate_hint(&a, "after", message);
}

int tls_handshake_reason(const struct tls_attempt *a, int error, char *message)
{
	bool hung_up = error == GNUTLS_E_PREMATURE_TERMINATION ||
		       (error == GNUTLS_E_PULL_ERROR && a->io_error == ECONNRESET);

	if (a->keys->psk && (hung_up || error == GNUTLS_E_FATAL_ALERT_RECEIVED))
		return psk_reason(a, error, message);
	if (hung_up) {
		int r = certificate_hint(a, "during", message);

		return r < 0 ? r : tls_fail(message, -ECONNRESET, "TLS: server hung up during "
					    "the TLS handshake");
	}
	switch (error) {
	case GNUTLS_E_FATAL_ALERT_RECEIVED:
		return alert_reason(a->session, message);
	case GNUTLS_E_CERTIFICATE_VERIFICATION_ERROR:
		return verification_reason(a, message);
	case GNUTLS_E_UNSUPPORTED_VERSION_PACKET:
		return tls_fail(message, -ENOTSUP, "TLS: server's TLS version is too old or not "
				"permitted");
	case GNUTLS_E_PULL_ERROR:
	case GNUTLS_E_PUSH_ERROR:
		return tls_fail(message, a->io_error ? -a->io_error : -EIO,
				"TLS: connection lost during the TLS handshake");
	default:
		return tls_fail(message, -EPROTO, "TLS: %s", gnutls_strerror(error));
	}
}

int tls_record_reason(gnutls_session_t session, int error, char *message)
{
	if (error == GNUTLS_E_FATAL_ALERT_RECEIVED)
		return alert_reason(session, message);
	return tls_fail(message, -EIO, "TLS: %s", gnutls_strerror(error));
}
