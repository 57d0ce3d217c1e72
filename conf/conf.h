/* The door of conf/: the one table of keys, nbdtab and nbdd.conf. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "conf/keys.h"
#include "lib/util/buffer.h"
#include "lib/util/macro.h"

#define CONF_FILE_MAX		(1u << 20)	/* bytes of one configuration file */
#define CONF_DEVICES_MAX	1024
#define CONF_NAME_MAX		128		/* bytes of a device's name */
#define CONF_PROBLEMS_MAX	256		/* then reading that file stops */
/* RUNTIME_DIR-root is root's alone, while nbdd's user may write in RUNTIME_DIR. */
#define ROOTS_SUFFIX		"-root"

/* One device of the files. */
struct conf_device {
	char *name;			/* section [NAME], or nbdN in nbdtab */
	int index;			/* wanted /dev/nbdN, or -1 */
	bool automatic;			/* attach when the daemon starts */
	bool nofail;			/* the boot goes on without it (nbdd.attach= alone) */
	struct device_keys keys;
	char *file;
	unsigned line;
};

struct conf_problem {
	char *file;
	unsigned line;			/* 0: the file as a whole */
	bool fatal;			/* the device of this line is left out */
	char *device;			/* its name, or NULL when the line names none */
	char *text;			/* what is wrong and what is allowed */
};

struct conf {
	struct conf_device *devices;
	size_t n_devices;
	struct conf_problem *problems;	/* by file, then by line */
	size_t n_problems;
};

/* Read both files; a missing file is an empty one; a broken line leaves out its device
 * only, and is a problem.  0, or -errno for out of memory alone.  Either path may be NULL. */
int conf_read(const char *nbdd_conf, const char *nbdtab, struct conf **ret);

/* A file of either kind as its bytes, or why there are none: for who reads it elsewhere. */
enum conf_reading {
	CONF_TEXT, CONF_MISSING, CONF_NOT_OPENED, CONF_NOT_READ, CONF_TOO_LARGE, CONF_DIRECTORY,
	CONF_NO_FILE, N_CONF_READINGS
};
struct conf_text {
	const char *file;		/* its name; NULL: there is none to be read */
	enum conf_reading reading;
	int error;			/* errno of CONF_NOT_OPENED, CONF_NOT_READ */
	struct buffer bytes;		/* CONF_FILE_MAX at most */
};
#define CONF_TEXT_NULL(name) ((struct conf_text){ .file = (name), \
						  .bytes = BUFFER_NULL(CONF_FILE_MAX + 1) })
/* 0 or -ENOMEM. */
int conf_text_read(struct conf_text *t);
void conf_text_clear(struct conf_text *t);
/* The rest of conf_read; the bytes are used up. */
int conf_parse(struct conf_text *nbdd_conf, struct conf_text *nbdtab, struct conf **ret);

/* Read one file of either kind, told by its name or else by its first line; here a missing
 * file is a problem. */
int conf_read_one(const char *file, struct conf **ret);
/* Print the problems, `FILE:LINE: error|warning: TEXT`; how many are errors. */
size_t conf_print_problems(const struct conf *c, FILE *out);
void conf_free(struct conf *c);
/* The device of that name, whatever its number; NULL. */
const struct conf_device *conf_find_named(const struct conf *c, const char *name);
/* The device of that name, or else with that nbdN / /dev/nbdN; NULL. */
const struct conf_device *conf_find(const struct conf *c, const char *name);

/* What the kernel's command line wants attached at boot, and dracut's words on the root
 * filesystem there; what was not given is NULL. */
struct conf_boot {
	struct conf *conf;
	char *root;			/* /dev/nbdN of root=nbd: or netroot=nbd: */
	char *fstype, *root_flags;
};
/* Read FILE (/proc/cmdline, or the like).  A parameter that is not understood costs its own
 * device only, and is a problem.  0 or -ENOMEM. */
int conf_read_boot(const char *file, struct conf_boot *ret);
void conf_boot_deinit(struct conf_boot *b);

/* /dev/nbdN or nbdN → N; -EINVAL for anything else. */
int conf_parse_device(const char *text, unsigned *ret_index);
/* A device's name: 1..CONF_NAME_MAX bytes of letters, digits and ._@:- , not starting with
 * `-` or `.`; -EINVAL. */
int conf_check_name(const char *name);

#define CONF_HOST_MAX 255
/* One server of `addresses`. */
struct conf_address {
	char host[CONF_HOST_MAX + 1];	/* name or address, without brackets; or the path */
	uint16_t port;			/* 0: none given */
	bool is_socket;			/* host is the path of a Unix socket */
};
/* HOST, HOST:PORT, [V6]:PORT, V6 or /SOCKET; -EINVAL for anything else. */
int conf_parse_address(const char *text, struct conf_address *ret);
