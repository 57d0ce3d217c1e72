/* What one nbdd leaves about a device for the next: a file in RUNTIME_DIR/devices, or the
 * same text in a live handover.
 *
 * One line, `nbdd-state VERSION LENGTH SHA256`, and LENGTH bytes of a JSON object.  Members
 * and keys that are not known are passed over; a version that is not known is refused.  So a
 * member that came later is optional, and the version stays, when either nbdd does without it,
 * and so it is with a key.  One without which a device must not be supervised, such as a key
 * that narrows which server is the right one, comes with another version. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "conf/conf.h"
#include "daemon/connector.h"
#include "daemon/outage.h"
#include "daemon/target.h"
#include "netlink/nbdk.h"

#define STATE_VERSION		1u
#define STATE_VERSION_MIN	1u		/* the oldest that is understood */
#define STATE_TEXT_MAX		(128u << 10)	/* bytes, the first line included */
#define STATE_ERROR_MAX		512
#define STATE_BOOT_ID_MAX	40
#define STATE_UNKNOWN_MAX	64
#define STATE_PID_MAX		(1u << 22)	/* PID_MAX_LIMIT of linux/threads.h */

enum state_phase {
	PHASE_ATTACHING,	/* the kernel has it, or NBD_CMD_CONNECT never came so far */
	PHASE_ATTACHED,
	PHASE_DETACHING,	/* somebody has asked for it, and that was granted */
	N_PHASES
};

enum state_link_phase {
	LINK_PHASE_DEAD,
	LINK_PHASE_HANDED,	/* the kernel has it, or was never asked to take it */
	LINK_PHASE_ALIVE,
	N_LINK_PHASES
};

struct state_link {
	unsigned phase;			/* enum state_link_phase */
	struct nbdk_sock sock;
	char peer[128];
	uint64_t since_real_usec;
	uint32_t relay_pid;		/* 0: no relay, or of an nbdd that did not write it */
	struct link_tls tls;
};

struct state {
	char name[CONF_NAME_MAX + 1];
	char identifier[NBDK_IDENTIFIER_MAX + 1];
	char boot_id[STATE_BOOT_ID_MAX];
	unsigned phase;			/* enum state_phase */
	uint32_t index;
	bool index_fixed, automatic, forced;	/* forced: the detach */
	struct device_keys keys;
	unsigned n_unknown;		/* keys of another nbdd, passed over; one of them: */
	char unknown[STATE_UNKNOWN_MAX];	/* escaped */
	struct export_info info;
	uint64_t size, grow_to;
	uint32_t block_size;
	uint64_t requeue_usec;
	bool timeout_due;		/* the kernel may have another than KEYS */
	struct target target;
	struct outages outages;
	char warning[DEVICE_REASON_MAX];
	char distrust[TLS_WHY_MAX];	/* why a relay does TLS, as in ktls_trust.h */
	uint32_t n_links;
	struct state_link links[CONF_CONNECTIONS_MAX];
};

/* The text of S, which the caller frees.  0, -ENOMEM, -E2BIG. */
_must_check_ int state_format(const struct state *s, char **ret, size_t *ret_len);
/* Read LEN bytes of TEXT into *RET, which was zeroed; state_deinit in any case.  -EINVAL,
 * -EPROTONOSUPPORT (another version) or -ENOMEM, with a sentence in ERROR. */
_must_check_ int state_parse(const char *text, size_t len, struct state *ret,
			     char error[static STATE_ERROR_MAX]);
void state_deinit(struct state *s);

/* Of this boot, as /proc/sys/kernel/random/boot_id has it.  0 or -errno. */
int state_boot_id(char ret[static STATE_BOOT_ID_MAX]);

/* ---- for the fuzzer ---------------------------------------------------------------- */

/* The JSON object alone. */
_must_check_ int state_parse_object(const char *text, size_t len, struct state *ret,
				    char error[static STATE_ERROR_MAX]);
