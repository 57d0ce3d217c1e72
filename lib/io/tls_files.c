/* The files of a TLS client: certificates by directory, pre-shared keys by file. */
#include "lib/io/tls_files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lib/io/tls_credentials.h"
#include "lib/util/cleanup.h"
#include "lib/util/escape.h"

#define KEY_FILE_MAX	(4u << 20)	/* bytes: a bundle of all public CAs has some 200 KiB */
#define NAME_TEXT_MAX	300

static void wipe(struct nbdd_tls_data *d)
{
	if (d->data)
		explicit_bzero(d->data, d->size);
	free(d->data);
	*d = (struct nbdd_tls_data) {};
}

#define _cleanup_wipe_ _cleanup_(wipe)

void tls_files_wipe(struct nbdd_tls_credentials *c)
{
	wipe(&c->ca);
	wipe(&c->crl);
	wipe(&c->certificate);
	wipe(&c->key);
	wipe(&c->psk);
	free(c->where);
	free(c->username);
	*c = (struct nbdd_tls_credentials) {};
}

/* Terminated by a zero, which does not count.  0 or -errno. */
static int read_all(int fd, struct stat *st, struct nbdd_tls_data *ret)
{
	struct nbdd_tls_data d = {};
	ssize_t r = 1;

	if (fstat(fd, st) < 0)
		return -errno;
	if (!S_ISREG(st->st_mode))
		return S_ISDIR(st->st_mode) ? -EISDIR : -EINVAL;
	if (st->st_size > KEY_FILE_MAX)
		return -EFBIG;
	d.data = calloc(1, (size_t)st->st_size + 1);
	if (!d.data)
		return -ENOMEM;
	while (d.size < (size_t)st->st_size && r > 0) {
		r = read(fd, (char *)d.data + d.size, (size_t)st->st_size - d.size);
		if (r < 0) {
			int e = -errno;

			wipe(&d);
			return e;
		}
		d.size += (size_t)r;
	}
	*ret = d;
	return 0;
}

/* Read PATH.  0, -ENOENT without a message, or -errno with one.  SECRET: nobody but the owner
 * and the group may have it. */
static int read_file(const char *path, bool secret, struct nbdd_tls_data *ret, char *message)
{
	_cleanup_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	struct stat st;
	int r = fd < 0 ? -errno : read_all(fd, &st, ret);

	if (r < 0)
		return r == -ENOENT ? r : tls_fail(message, r, "TLS: reading %s", path);
	if (!secret || !(st.st_mode & S_IRWXO))
		return 0;
	wipe(ret);
	return tls_fail(message, -EACCES, "TLS: %s holds a secret, but its mode %04o lets "
			"everybody have it; run 'chmod 600 %s', and think of a new key", path,
			st.st_mode & 07777, path);
}

static char *join(const char *dir, const char *name)
{
	char *path;

	return asprintf(&path, "%s/%s", dir, name) < 0 ? NULL : path;
}

/* Read DIR/NAME, as above. */
static int read_in(const char *dir, const char *name, bool secret, struct nbdd_tls_data *ret,
		   char *message)
{
	_cleanup_free_ char *path = join(dir, name);

	return path ? read_file(path, secret, ret, message)
		    : tls_fail(message, -ENOMEM, "TLS: no memory");
}

/* Is DIR a directory of certificates?  1, 0 or -errno. */
static int has_certificates(const char *dir)
{
	static const char *const names[] = { TLS_CA_CERT, TLS_CLIENT_CERT };

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		_cleanup_free_ char *path = join(dir, names[i]);
		struct stat st;

		if (!path)
			return -ENOMEM;
		/* access(2) would leave out the capabilities of who is not root. */
		if (stat(path, &st) == 0)
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

static int find_directory(struct nbdd_tls_credentials *c, const struct tls_config *config,
			  char *message)
{
	int r;

	if (!config->certificates)
		return search(&c->where, message);
	r = has_certificates(config->certificates);
	if (r < 0)
		return tls_fail(message, r, "TLS: certificates in %s", config->certificates);
	if (r == 0)
		return tls_fail(message, -ENOENT, "TLS: neither %s nor %s is in %s",
				TLS_CA_CERT, TLS_CLIENT_CERT, config->certificates);
	c->where = strdup(config->certificates);
	return c->where ? 0 : tls_fail(message, -ENOMEM, "TLS: no memory");
}

static int read_x509(struct nbdd_tls_credentials *c, const struct tls_config *config,
		     char *message)
{
	const struct {
		const char *name;
		bool secret;
		struct nbdd_tls_data *data;
	} files[] = {
		{ TLS_CA_CERT, false, &c->ca },
		{ TLS_CA_CRL, false, &c->crl },
		{ TLS_CLIENT_CERT, false, &c->certificate },
		{ TLS_CLIENT_KEY, true, &c->key },
	};
	int r = find_directory(c, config, message);

	if (r < 0 || !c->where)
		return r;
	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		/* A key without a certificate is of no use here, and none of our business. */
		if (files[i].secret && !c->certificate.data)
			break;
		r = read_in(c->where, files[i].name, files[i].secret, files[i].data, message);
		if (r == -ENOENT && files[i].secret)
			return tls_fail(message, r, "TLS: %s/%s has no key: there is no %s/%s",
					c->where, TLS_CLIENT_CERT, c->where, TLS_CLIENT_KEY);
		if (r < 0 && r != -ENOENT)
			return r;
	}
	return 0;
}

/* Certificate and key may be in one file. */
static int read_named(struct nbdd_tls_credentials *c, const struct tls_named_files *f,
		      char *message)
{
	const char *certificate = f->certificate ? f->certificate : f->key;
	const struct {
		const char *path;
		bool secret;
		struct nbdd_tls_data *data;
	} files[] = {
		{ f->ca, false, &c->ca },
		{ certificate, false, &c->certificate },
		{ f->key ? f->key : certificate, true, &c->key },
	};
	int r;

	for (size_t i = 0; i < ARRAY_SIZE(files); i++) {
		if (!files[i].path)
			continue;
		r = read_file(files[i].path, files[i].secret, files[i].data, message);
		if (r == -ENOENT)
			return tls_fail(message, r, "TLS: there is no %s", files[i].path);
		if (r < 0)
			return r;
	}
	c->where = strdup(f->ca ? f->ca : certificate);
	return c->where ? 0 : tls_fail(message, -ENOMEM, "TLS: no memory");
}

static bool any_named(const struct tls_named_files *f)
{
	return f->ca || f->certificate || f->key;
}

static int find_username(struct nbdd_tls_credentials *c, const struct tls_config *config,
			 char *message)
{
	char login[256];
	int r = config->username ? 0 : getlogin_r(login, sizeof(login));

	if (r != 0)
		return tls_fail(message, -r, "TLS: no user name is set for the pre-shared key, "
				"and the login name cannot be told");
	c->username = strdup(config->username ? config->username : login);
	return c->username ? 0 : tls_fail(message, -ENOMEM, "TLS: no memory");
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

static int read_psk(struct nbdd_tls_credentials *c, const struct tls_config *config,
		    char *message)
{
	_cleanup_wipe_ struct nbdd_tls_data file = {};
	char name[NAME_TEXT_MAX], *hex;
	int r = find_username(c, config, message);

	if (r < 0)
		return r;
	escape_text(name, sizeof(name), c->username, strlen(c->username));
	r = read_file(config->psk_file, true, &file, message);
	if (r == -ENOENT)
		return tls_fail(message, r, "TLS: reading %s", config->psk_file);
	if (r < 0)
		return r;
	hex = find_key(file.data, c->username);
	if (!hex)
		return tls_fail(message, -ENOKEY, "TLS: %s has no key for user '%s'",
				config->psk_file, name);
	if (!*hex || strlen(hex) % 2 || hex[strspn(hex, "0123456789abcdefABCDEF")])
		return tls_fail(message, -EINVAL, "TLS: the key of user '%s' in %s is not "
				"pairs of hexadecimal digits", name, config->psk_file);
	c->where = strdup(config->psk_file);
	c->psk.data = strdup(hex);
	if (!c->where || !c->psk.data)
		return tls_fail(message, -ENOMEM, "TLS: no memory");
	c->psk.size = strlen(hex);
	return 0;
}

int tls_files_read(struct nbdd_tls_credentials *c, const struct tls_config *config,
		   char message[static TLS_MESSAGE_MAX])
{
	int r;

	*c = (struct nbdd_tls_credentials) {};
	if (config->psk_file)
		r = read_psk(c, config, message);
	else if (any_named(&config->files))
		r = read_named(c, &config->files, message);
	else
		r = read_x509(c, config, message);
	if (r < 0)
		tls_files_wipe(c);
	return r;
}

/* Where the systems keep the CAs that all trust, as one file. */
int tls_files_system_trust(struct nbdd_tls_data *ret, char message[static TLS_MESSAGE_MAX])
{
	static const char *const paths[] = {
		"/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt",
		"/etc/ssl/ca-bundle.pem", "/etc/ssl/cert.pem",
	};

	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		int r = read_file(paths[i], false, ret, message);

		if (r != -ENOENT)
			return r;
	}
	return tls_fail(message, -ENOENT, "TLS: no directory of certificates is set, and the "
			"system has no file of CAs (looked for %s and others)", paths[0]);
}
