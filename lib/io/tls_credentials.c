#include "lib/io/tls_credentials.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/util/cleanup.h"
#include "lib/util/escape.h"

#define KEY_FILE_MAX	(4u << 20)	/* bytes: a bundle of all public CAs has some 200 KiB */
#define NAME_TEXT_MAX	300

#define CA_CERT		"ca-cert.pem"
#define CA_CRL		"ca-crl.pem"
#define CLIENT_CERT	"client-cert.pem"
#define CLIENT_KEY	"client-key.pem"

int tls_fail(char *message, int r, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(message, TLS_MESSAGE_MAX, format, ap);
	va_end(ap);
	return r;
}

static void wipe(gnutls_datum_t *d)
{
	if (d->data)
		explicit_bzero(d->data, d->size);
	free(d->data);
	*d = (gnutls_datum_t) {};
}

#define _cleanup_wipe_ _cleanup_(wipe)

static int read_all(int fd, gnutls_datum_t *ret)
{
	gnutls_datum_t d = {};
	struct stat st;
	ssize_t r = 1;

	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
	if (st.st_size > KEY_FILE_MAX)
		return -EFBIG;
	/* One more, for a file that grows and for the end of a string. */
	d.data = calloc(1, (size_t)st.st_size + 1);
	if (!d.data)
		return -ENOMEM;
	while (d.size < (size_t)st.st_size && r > 0) {
		r = read(fd, d.data + d.size, (size_t)st.st_size - d.size);
		if (r < 0) {
			int e = -errno;

			wipe(&d);
			return e;
		}
		d.size += (unsigned)r;
	}
	*ret = d;
	return 0;
}

/* The file PATH: terminated, to be wiped.  0 or -errno. */
static int read_file(const char *path, gnutls_datum_t *ret)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	return fd < 0 ? -errno : read_all(fd, ret);
}

static char *join(const char *dir, const char *name)
{
	char *path;

	return asprintf(&path, "%s/%s", dir, name) < 0 ? NULL : path;
}

/* Read DIR/NAME.  0, -ENOENT without a message, or -errno with one. */
static int read_in(const char *dir, const char *name, gnutls_datum_t *ret, char *message)
{
	_cleanup_free_ char *path = join(dir, name);
	int r = path ? read_file(path, ret) : -ENOMEM;

	return r == 0 || r == -ENOENT ? r : tls_fail(message, r, "TLS: reading %s", path ? path
									       : name);
}

static int bad_file(char *message, const char *dir, const char *name, int gnutls_error)
{
	return tls_fail(message, -EINVAL, "TLS: %s/%s cannot be used: %s", dir, name,
			gnutls_error < 0 ? gnutls_strerror(gnutls_error)
					 : "there is nothing in it");
}

static int read_ca(struct tls_credentials *k, const char *dir, char *message)
{
	_cleanup_wipe_ gnutls_datum_t d = {};
	int r = read_in(dir, CA_CERT, &d, message), n;

	if (r == -ENOENT) {
		n = gnutls_certificate_set_x509_system_trust(k->x509);
		return n < 0 && n != GNUTLS_E_UNIMPLEMENTED_FEATURE
			? bad_file(message, dir, CA_CERT, n) : 0;
	}
	if (r < 0)
		return r;
	n = gnutls_certificate_set_x509_trust_mem(k->x509, &d, GNUTLS_X509_FMT_PEM);
	return n > 0 ? 0 : bad_file(message, dir, CA_CERT, n);
}

static int read_crl(struct tls_credentials *k, const char *dir, char *message)
{
	_cleanup_wipe_ gnutls_datum_t d = {};
	int r = read_in(dir, CA_CRL, &d, message), n;

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	n = gnutls_certificate_set_x509_crl_mem(k->x509, &d, GNUTLS_X509_FMT_PEM);
	return n > 0 ? 0 : bad_file(message, dir, CA_CRL, n);
}

static int read_client(struct tls_credentials *k, const char *dir, char *message)
{
	_cleanup_wipe_ gnutls_datum_t cert = {}, key = {};
	int r = read_in(dir, CLIENT_CERT, &cert, message);

	if (r < 0)
		return r == -ENOENT ? 0 : r;
	r = read_in(dir, CLIENT_KEY, &key, message);
	if (r == -ENOENT)
		return tls_fail(message, r, "TLS: %s/%s has no key: reading %s/%s", dir,
				CLIENT_CERT, dir, CLIENT_KEY);
	if (r < 0)
		return r;
	r = gnutls_certificate_set_x509_key_mem(k->x509, &cert, &key, GNUTLS_X509_FMT_PEM);
	if (r < 0)
		return tls_fail(message, -EINVAL, "TLS: %s/%s and %s cannot be used: %s", dir,
				CLIENT_CERT, CLIENT_KEY, gnutls_strerror(r));
	return 0;
}

/* Is DIR a directory of certificates?  1, 0 or -errno. */
static int has_certificates(const char *dir)
{
	static const char *const names[] = { CA_CERT, CLIENT_CERT };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		_cleanup_free_ char *path = join(dir, names[i]);

		if (!path)
			return -ENOMEM;
		if (access(path, F_OK) == 0)
			return 1;
		if (errno != ENOENT && errno != ENOTDIR)
			return -errno;
	}
	return 0;
}

/* The directory that is used when none is set: NULL in *RET for none. */
static int search(char **ret, char *message)
{
	static const char *const below_home[] = { ".pki/libnbd", ".config/pki/libnbd" };
	const char *home = secure_getenv("HOME");
	size_t n = geteuid() == 0 ? 1 : ARRAY_SIZE(below_home);

	*ret = NULL;
	for (size_t i = 0; i < n; i++) {
		char *dir = geteuid() == 0 ? strdup("/etc/pki/libnbd")
					   : join(home ? home : "", below_home[i]);
		int r = dir ? has_certificates(dir) : -ENOMEM;

		if (r > 0) {
			*ret = dir;
			return 0;
		}
		/* Another's home that is closed to us is as good as an empty one. */
		free(dir);
		if (r == -ENOMEM)
			return tls_fail(message, r, "TLS: no memory");
	}
	return 0;
}

static int find_directory(struct tls_credentials *k, const struct tls_config *config,
			  char *message)
{
	int r;

	if (!config->certificates)
		return search(&k->where, message);
	r = has_certificates(config->certificates);
	if (r < 0)
		return tls_fail(message, r, "TLS: certificates in %s", config->certificates);
	if (r == 0)
		return tls_fail(message, -ENOENT, "TLS: neither %s nor %s is in %s", CA_CERT,
				CLIENT_CERT, config->certificates);
	k->where = strdup(config->certificates);
	return k->where ? 0 : tls_fail(message, -ENOMEM, "TLS: no memory");
}

static int read_x509(struct tls_credentials *k, const struct tls_config *config, char *message)
{
	int r = find_directory(k, config, message);

	if (r < 0)
		return r;
	if (gnutls_certificate_allocate_credentials(&k->x509) < 0)
		return tls_fail(message, -ENOMEM, "TLS: no memory for certificates");
	if (k->where) {
		r = read_ca(k, k->where, message);
		if (r == 0)
			r = read_crl(k, k->where, message);
		return r < 0 ? r : read_client(k, k->where, message);
	}
	if (config->verify_peer)
		gnutls_certificate_set_x509_system_trust(k->x509);
	else if (gnutls_anon_allocate_client_credentials(&k->anonymous) < 0)
		return tls_fail(message, -ENOMEM, "TLS: no memory for credentials");
	return 0;
}

static int find_username(struct tls_credentials *k, const struct tls_config *config,
			 char *message)
{
	char login[256];
	int r = config->username ? 0 : getlogin_r(login, sizeof(login));

	if (r != 0)
		return tls_fail(message, -r, "TLS: no user name is set for the pre-shared key, "
				"and the login name cannot be told");
	k->username = strdup(config->username ? config->username : login);
	return k->username ? 0 : tls_fail(message, -ENOMEM, "TLS: no memory");
}

/* The key of NAME among the lines "name:key" of TEXT, which is cut up. */
static char *find_key(char *text, const char *name)
{
	size_t len = strlen(name);
	char *line;

	while ((line = strsep(&text, "\r\n")))
		if (strncmp(line, name, len) == 0 && line[len] == ':')
			return line + len + 1;
	return NULL;
}

static int read_psk(struct tls_credentials *k, const struct tls_config *config, char *message)
{
	_cleanup_wipe_ gnutls_datum_t file = {};
	char name[NAME_TEXT_MAX], *hex;
	gnutls_datum_t key;
	int r = find_username(k, config, message);

	if (r < 0)
		return r;
	escape_text(name, sizeof(name), k->username, strlen(k->username));
	r = read_file(config->psk_file, &file);
	if (r < 0)
		return tls_fail(message, r, "TLS: reading %s", config->psk_file);
	hex = find_key((char *)file.data, k->username);
	if (!hex)
		return tls_fail(message, -ENOKEY, "TLS: %s has no key for user '%s'",
				config->psk_file, name);
	key = (gnutls_datum_t) { (unsigned char *)hex, (unsigned)strlen(hex) };
	if (!key.size || key.size % 2 || strspn(hex, "0123456789abcdefABCDEF") != key.size)
		return tls_fail(message, -EINVAL, "TLS: the key of user '%s' in %s is not "
				"pairs of hexadecimal digits", name, config->psk_file);
	r = gnutls_psk_allocate_client_credentials(&k->psk);
	if (r == 0)
		r = gnutls_psk_set_client_credentials(k->psk, k->username, &key,
						      GNUTLS_PSK_KEY_HEX);
	return r == 0 ? 0 : tls_fail(message, -EINVAL, "TLS: the key of user '%s' in %s: %s",
				     name, config->psk_file, gnutls_strerror(r));
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

int tls_credentials_read(struct tls_credentials *k, const struct tls_config *config,
			 char message[static TLS_MESSAGE_MAX])
{
	int r;

	*k = (struct tls_credentials) {};
	r = config->psk_file ? read_psk(k, config, message) : read_x509(k, config, message);
	if (r < 0)
		tls_credentials_free(k);
	return r;
}
