/* Private to netlink/: requests to the generic netlink family `nbd` and their answers.
 *
 * Built in one message and received into one buffer, both made at genl_open: a daemon that
 * serves the root file system reconnects without asking for memory.  The errno of a failed
 * request is the kernel's own, out of its acknowledgement. */
#pragma once

#include <linux/nbd-netlink.h>
#include <netlink/attr.h>
#include <netlink/genl/genl.h>
#include <netlink/msg.h>
#include <stdint.h>

#include "lib/util/macro.h"
#include "netlink/nbdk.h"
#include "netlink/sock.h"

#define GENL_REQUEST_MAX	4096
#define GENL_ANSWER_MAX		8192	/* the driver answers within one page */

struct genl {
	struct nl_sock *sock;
	struct nl_msg *msg;
	int family;		/* the kernel's numbers for `nbd` ... */
	int group;		/* ... and for its link-dead multicast */
	_Alignas(struct nlmsghdr) uint8_t answer[GENL_ANSWER_MAX];
};

struct nbdk {
	struct genl genl;
};

/* 0 or -errno; -ENOENT: the kernel has no family `nbd` (or not for this network namespace:
 * the family exists in the initial one only). */
_must_check_ int genl_open(struct genl *g);
/* With FD as its socket, which is closed on failure. */
_must_check_ int genl_open_fd(struct genl *g, int fd);
void genl_close(struct genl *g);

/* Start a request with COMMAND of the nbd family; attributes are put into the result. */
struct nl_msg *genl_begin(struct genl *g, uint8_t command);

/* Put one attribute: 0, or -EMSGSIZE when the request is full. */
_must_check_ int genl_put_u32(struct genl *g, int type, uint32_t value);
_must_check_ int genl_put_u64(struct genl *g, int type, uint64_t value);
_must_check_ int genl_put_string(struct genl *g, int type, const char *value);

/* What the kernel answers besides its acknowledgement; attributes already validated
 * against genl_nbd_policy.  0, or -errno that becomes the result of the call. */
typedef int (*genl_answer_fn)(struct nlattr **attrs, void *userdata);

/* Send the request that was begun and wait for the acknowledgement; once more when the driver
 * was loaded anew.  0 or -errno. */
_must_check_ int genl_call(struct genl *g, genl_answer_fn fn, void *userdata);

/* Groups of the controller itself: a family was registered. */
#define GENL_CTRL_GROUP	GENL_ID_CTRL
/* Is it the news that the nbd family was?  Then G has its new numbers. */
_must_check_ bool genl_renewed(struct genl *g, struct nlmsghdr *h);

/* The attributes of a message that the nbd family sent: 0, or -EBADMSG. */
_must_check_ int genl_parse(const struct genl *g, struct nlmsghdr *h, uint8_t *ret_command,
			    struct nlattr *attrs[static NBD_ATTR_MAX + 1]);
