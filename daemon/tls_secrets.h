/* Keys and certificates of a device's TLS, held in memory.
 *
 * They lie in files, which may be on the very disk that is away when they are needed.  So a
 * disposable child reads them before each connection, and when it does not answer soon, those
 * of before are used.  The memory is locked, in no core dump, and empty in every child; the
 * connector of this device gets a copy (job.h), which it wipes after the handshake. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <nbdd.h>
#include "conf/conf.h"
#include "daemon/target.h"
#include "lib/util/macro.h"

#define TLS_SECRETS_MESSAGE_MAX	512
#define TLS_READERS_MAX		32	/* processes at a time, those that hang included */

struct manager;
struct tls_image;
struct tls_secrets;

/* The files have been read, or will not be: ERROR NULL to go on, else why not, escaped; LATE
 * when the reader does not answer. */
typedef void (*tls_secrets_done_fn)(const char *error, bool late, void *userdata);

int tls_secrets_new(struct manager *m, const char *name, tls_secrets_done_fn done,
		    void *userdata, struct tls_secrets **ret);
/* Somebody else waits for them from now on. */
void tls_secrets_set_done(struct tls_secrets *s, tls_secrets_done_fn done);
/* Wipe and free; NULL is fine.  Returns NULL. */
struct tls_secrets *tls_secrets_free(struct tls_secrets *s);

/* Have the files read that KEYS, or else TARGET's URI, name, unless that was done just now:
 * 0 to go on, -EAGAIN when `done` will be called, or another -errno. */
_must_check_ int tls_secrets_ready(struct tls_secrets *s, const struct device_keys *keys,
				   const struct target *target);
bool tls_secrets_known(const struct tls_secrets *s);
/* Why the files as they are now are not used, or "". */
const char *tls_secrets_problem(const struct tls_secrets *s);

/* All of them as a connector is given them: struct tls_image in SIZE bytes; NULL: none. */
const struct tls_image *tls_secrets_image(const struct tls_secrets *s, size_t *ret_size);
