/* TLS in a connector: what is asked for before the handshake, and what comes of it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include <nbdd.h>
#include "conf/conf.h"
#include "daemon/tls_secrets.h"

#define TLS_WHY_MAX	200

struct export_info;

/* What a device wants; the texts are its keys' and target's, and there are none without TLS. */
struct tls_plan {
	int mode;			/* LIBNBD_TLS_* */
	enum conf_kernel_tls kernel;
	const char *distrust;		/* why the kernel is not asked though it may; or NULL */
	const char *hostname;		/* NULL: the server's own */
	const char *priority;		/* NULL: by who will do the records */
	bool verify_peer;
	bool load;			/* the kernel may load its ciphers: nothing is away */
	struct tls_secrets *secrets;	/* known, unless TLS is off */
	struct tls_image *image;	/* in the connector: them */
};

/* How a connection is encrypted. */
struct link_tls {
	uint16_t version;		/* 0x0303: TLS 1.2, 0x0304: TLS 1.3; 0: not at all */
	bool in_kernel;			/* else by a relay */
	bool no_cipher;			/* the kernel has not this one */
	char cipher[32];
	char why_not[TLS_WHY_MAX];	/* in the kernel */
	char peer[256];			/* names in the server's certificate */
	int64_t peer_expires, own_expires;	/* seconds since 1970; 0: no certificate */
};

bool tls_wanted(const struct device_keys *keys, const struct target *target);
void tls_plan_make(struct tls_plan *ret, const struct device_keys *keys,
		   const struct target *target, struct tls_secrets *secrets,
		   const char *distrust);

/* Are the records to be the kernel's, if it can? */
bool tls_plan_asks_kernel(const struct tls_plan *p);

/* Set H up for a connection to SERVER over FD; CREDENTIALS must live until the handshake is
 * over.  0, or -1 with the library's error set. */
_must_check_ int tls_plan_apply(const struct tls_plan *p, struct nbd_handle *h,
				const struct server *server, int fd,
				struct nbdd_tls_credentials *credentials);

/* The handshakes of TLS and NBD are over: give the records to the kernel, or else say in
 * *RET_STATE (its version is 0 otherwise) how a relay goes on.  The socket to the server, which
 * in the first case is one for the kernel's nbd driver; -1 with the library's error set; or
 * -errno with MESSAGE, of TLS_WHY_MAX bytes, filled, and RET->why_not, too, when it was the
 * kernel that failed. */
_must_check_ int tls_plan_finish(const struct tls_plan *p, struct nbd_handle *h,
				 const struct export_info *info, struct link_tls *ret,
				 struct nbdd_tls_state *ret_state, char *message);

/* What a connector says of its connection, made fit to be shown. */
void link_tls_clean(struct link_tls *t);
/* "TLS1.3" */
const char *link_tls_version(const struct link_tls *t);
