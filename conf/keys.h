/* The keys of one device and the table of them; included by conf/conf.h. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CONF_VALUE_MAX		4096		/* bytes of one value */
#define CONF_ADDRESSES_MAX	16		/* servers of one device */
#define CONF_CONNECTIONS_MAX	16

enum conf_tls { CONF_TLS_OFF, CONF_TLS_ALLOW, CONF_TLS_REQUIRE };
enum conf_kernel_tls { CONF_KERNEL_TLS_AUTO, CONF_KERNEL_TLS_REQUIRE, CONF_KERNEL_TLS_OFF };
enum conf_size_change { CONF_SIZE_REFUSE, CONF_SIZE_GROW };

/* Every key of one device, typed; defaults after device_keys_init. */
struct device_keys {
	char *uri;			/* or NULL: then addresses */
	char *addresses[CONF_ADDRESSES_MAX];	/* host, host:port, [v6]:port, /socket */
	size_t n_addresses;
	uint32_t port;			/* of addresses without one */
	char *export_name;		/* NULL: the URI's, else "" */
	enum conf_tls tls;
	char *tls_ca_file, *tls_cert_file, *tls_key_file;
	char *tls_certificates, *tls_psk_file, *tls_username, *tls_hostname, *tls_priority;
	enum conf_kernel_tls kernel_tls;
	uint32_t connections;		/* 0: auto */
	uint64_t block_size;		/* bytes; 0: what the server prefers, in 512..4096 */
	uint64_t size;			/* bytes; 0: all of the export */
	bool preinit;			/* the server sends no handshake */
	bool read_only;
	uint64_t timeout_usec;		/* 0: a slow server is left alone */
	uint64_t requeue_interval_usec;
	uint64_t dead_timeout_usec;	/* USEC_INFINITY: I/O waits for the server */
	uint64_t reconnect_delay_usec;	/* first pause of the back-off */
	uint64_t reconnect_delay_max_usec;
	uint64_t connect_timeout_usec;	/* of one attempt, wall clock */
	uint64_t keepalive_usec;	/* idle time before a probe; 0: no keepalive */
	uint64_t keepalive_timeout_usec;	/* silence after which a link is dead */
	char *identifier;		/* NULL: made from the name */
	enum conf_size_change size_change;
	bool swap;
	char *on_event, *on_event_user;
	uint64_t set;			/* bit i: conf_keys[i] was given */
};

void device_keys_init(struct device_keys *k);
void device_keys_deinit(struct device_keys *k);
/* DST is written as if it were new memory: what it held is not freed.  0 or -ENOMEM. */
int device_keys_copy(struct device_keys *dst, const struct device_keys *src);
/* Same values?  Which of them were given (`set`) does not count. */
bool device_keys_equal(const struct device_keys *a, const struct device_keys *b);

/* The keys whose values differ, as bits like `set`; conf_change_of: what all these take. */
uint64_t device_keys_differ(const struct device_keys *a, const struct device_keys *b);
enum conf_change conf_change_of(uint64_t keys);
/* Lay the keys that are given in OVER upon K.  Another uri or addresses puts a server in the
 * place of the old one, with all that belonged to it: port and export.  0 or -ENOMEM. */
int device_keys_overlay(struct device_keys *k, const struct device_keys *over);

/* K gets the values that FROM has for KEYS, bits like `set`.  0 or -ENOMEM. */
int device_keys_keep(struct device_keys *k, const struct device_keys *from, uint64_t keys);

enum conf_type {
	CONF_STRING, CONF_STRINGS, CONF_U32, CONF_BOOL, CONF_ENUM, CONF_USEC, CONF_SIZE,
	CONF_AUTO_U32,
	CONF_NOTHING,			/* accepted, without a meaning: `persist`, `_local` */
};

/* What a row allows besides min..max, or asks for. */
enum conf_rule {
	CONF_ZERO = 1 << 0,		/* 0 is allowed, too */
	CONF_INFINITY = 1 << 1,		/* so is `infinity` */
	CONF_WHOLE_SECONDS = 1 << 2,
	CONF_POWER_OF_2 = 1 << 3,
	CONF_PATH = 1 << 4,		/* an absolute path */
	CONF_URI = 1 << 5,		/* an NBD URI */
	CONF_OF_ONE_DEVICE = 1 << 6,	/* makes no sense in [defaults] */
	CONF_NO_NAME = 1 << 7,		/* no @NAME */
};

/* What it takes to give an attached device another value. */
enum conf_change {
	CONF_LIVE,			/* nothing: it counts from now on */
	CONF_RECONNECT,			/* new connections to the same server */
	CONF_MOVE,			/* a move, for it may be another server */
	CONF_ATTACH,			/* the kernel was told at attach: detach, attach again */
};

/* One row a key: the readers, nbdctl's flags, JSON and the man page come from it. */
struct conf_key {
	const char *name;		/* as in nbdd.conf, --NAME, JSON */
	enum conf_type type;
	size_t offset;			/* of the member in struct device_keys */
	const char *const *words;	/* CONF_ENUM: NULL-terminated, by value */
	uint64_t min, max;		/* numbers, times in usec, bytes of a size or string */
	unsigned rules;			/* enum conf_rule */
	enum conf_change change;
	const char *initial;		/* default, as text; NULL: unset */
	const char *value;		/* placeholder in help: TIME, BYTES, auto|require|off */
	const char *text;		/* one or two sentences for people */
};
extern const struct conf_key conf_keys[];
extern const size_t n_conf_keys;

/* Row of NAME or of an alias of it (nbd-client's spellings, too); NULL if none, or if
 * device_keys_set refuses it with a reason (`sdp`).  A name that is accepted without a
 * meaning has a row of type CONF_NOTHING, which is not in conf_keys.  *RET_VALUE (may be
 * NULL) is what the name stands for without a value (`swap`: yes), NULL if it needs one. */
const struct conf_key *conf_key_find(const char *name, const char **ret_value);

#define CONF_ALLOWED_MAX 256
/* What a key may be set to, for people: `a number from 1 to 65535`.  Returns BUF. */
char *conf_key_allowed(const struct conf_key *key, char buf[static CONF_ALLOWED_MAX]);

#define CONF_ERROR_MAX 512

/* Set KEY from TEXT (NULL: a flag without value, as in nbdtab).  -EINVAL or -ERANGE (or
 * -ENOMEM), K unchanged, with a sentence in ERROR: the key, what came (escaped), what is
 * allowed. */
int device_keys_set(struct device_keys *k, const char *key, const char *text,
		    char error[static CONF_ERROR_MAX]);
/* What a key is set to, as text that device_keys_set takes; NULL if it has no value.
 * The caller frees *RET.  0, -ENOENT (no such key), -ENOMEM. */
int device_keys_get(const struct device_keys *k, const char *key, char **ret);
/* Was the key NAME given, rather than left at its default? */
bool device_keys_given(const struct device_keys *k, const char *name);
/* Do the keys fit together: a uri or addresses, not both contradicting, …  As above. */
int device_keys_check(const struct device_keys *k, char error[static CONF_ERROR_MAX]);
