/* The door of conf/: the one table of keys, nbdtab and nbdd.conf. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/util/macro.h"

#define CONF_FILE_MAX		(1u << 20)	/* bytes of one configuration file */
#define CONF_VALUE_MAX		4096		/* bytes of one value */
#define CONF_ADDRESSES_MAX	16		/* servers of one device */
#define CONF_DEVICES_MAX	1024
#define CONF_NAME_MAX		128		/* bytes of a device's name */
#define CONF_PROBLEMS_MAX	256		/* then reading that file stops */
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
	char *tls_certificates, *tls_psk_file, *tls_username, *tls_hostname, *tls_priority;
	enum conf_kernel_tls kernel_tls;
	uint32_t connections;		/* 0: auto */
	uint32_t block_size;		/* bytes; 0: what the server prefers, in 512..4096 */
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
	uint64_t set;			/* bit i: conf_keys[i] was given */
};

void device_keys_init(struct device_keys *k);
void device_keys_deinit(struct device_keys *k);
int device_keys_copy(struct device_keys *dst, const struct device_keys *src);
bool device_keys_equal(const struct device_keys *a, const struct device_keys *b);

enum conf_type {
	CONF_STRING, CONF_STRINGS, CONF_U32, CONF_BOOL, CONF_ENUM, CONF_USEC, CONF_SIZE,
	CONF_AUTO_U32,
};

/* One row a key: the readers, nbdctl's flags, JSON and the man page come from it. */
struct conf_key {
	const char *name;		/* as in nbdd.conf, --NAME, JSON */
	enum conf_type type;
	size_t offset;			/* of the member in struct device_keys */
	const char *const *words;	/* CONF_ENUM: NULL-terminated, by value */
	uint64_t min, max;		/* numbers, times in usec, sizes in bytes */
	const char *initial;		/* default, as text; NULL: unset */
	const char *value;		/* placeholder in help: TIME, BYTES, auto|require|off */
	const char *text;		/* one or two sentences for people */
};
extern const struct conf_key conf_keys[];
extern const size_t n_conf_keys;

/* Row of NAME or of an alias of it (nbd-client's spellings, too); NULL if none.  *RET_VALUE
 * (may be NULL) is set to the value that a valueless alias such as `persist` stands for. */
const struct conf_key *conf_key_find(const char *name, const char **ret_value);

#define CONF_ERROR_MAX 512

/* Set KEY from TEXT (NULL: a flag without value, as in nbdtab).  -EINVAL or -ERANGE, with
 * a sentence in ERROR: the key, what is allowed, what came instead (escaped). */
int device_keys_set(struct device_keys *k, const char *key, const char *text,
		    char error[static CONF_ERROR_MAX]);
/* What a key is set to, as text that device_keys_set takes; NULL if it has no value.
 * The caller frees *RET.  0, -ENOENT (no such key), -ENOMEM. */
int device_keys_get(const struct device_keys *k, const char *key, char **ret);
/* Do the keys fit together: a uri or addresses, not both contradicting, …  As above. */
int device_keys_check(const struct device_keys *k, char error[static CONF_ERROR_MAX]);

/* One device of the files. */
struct conf_device {
	char *name;			/* section [NAME], or nbdN in nbdtab */
	int index;			/* wanted /dev/nbdN, or -1 */
	bool automatic;			/* attach when the daemon starts */
	struct device_keys keys;
	char *file;
	unsigned line;
};

struct conf_problem {
	char *file;
	unsigned line;
	bool fatal;			/* the device of this line is left out */
	char *text;			/* what is wrong and what is allowed */
};

struct conf {
	struct conf_device *devices;
	size_t n_devices;
	struct conf_problem *problems;
	size_t n_problems;
};

/* Read both files; a missing file is an empty one; a broken line leaves out its device
 * only, and is a problem.  0, or -errno for out of memory alone.  Either path may be NULL. */
int conf_read(const char *nbdd_conf, const char *nbdtab, struct conf **ret);
void conf_free(struct conf *c);
/* The device of that name, or with that nbdN / /dev/nbdN; NULL. */
const struct conf_device *conf_find(const struct conf *c, const char *name);

/* /dev/nbdN or nbdN → N; -EINVAL for anything else. */
int conf_parse_device(const char *text, unsigned *ret_index);
/* A device's name: 1..CONF_NAME_MAX bytes of letters, digits and ._@:- ; -EINVAL. */
int conf_check_name(const char *name);
