/* Private to conf/: what its files share. */
#pragma once

#include "conf/conf.h"
#include "lib/util/buffer.h"
#include "lib/util/units.h"

/* A name that is not a key of its own: another spelling, one without a meaning, or one that
 * is refused with a reason. */
struct conf_alias {
	const char *name;
	const char *key;		/* the key that it stands for, or NULL */
	const char *value;		/* of the key, when the alias comes without one */
	const char *refused;		/* why, and what to do instead */
};
extern const struct conf_alias conf_aliases[];	/* ends with an empty one */
const struct conf_alias *conf_alias_find(const char *name);

/* The key or alias nearest to NAME (EXTRA: more names to think of, NULL-terminated), or NULL
 * when none is near. */
const char *conf_nearest(const char *name, const char *const *extra);

/* The bit of KEY in `device_keys.set`. */
uint64_t conf_key_bit(const struct conf_key *key);

/* Is a file of certificates or keys set, in place of a directory? */
bool device_keys_have_files(const struct device_keys *k);

/* Forget the value of KEY: NULL, or the default. */
void device_keys_unset(struct device_keys *k, const struct conf_key *key);

/* A time that parse_usec takes back without loss: the largest unit that divides it. */
char *conf_exact_usec(char buf[static FORMAT_MAX], uint64_t usec);

/* The first N strings of LIST. */
void conf_free_strings(char **list, size_t n);

/* Set KEY from TEXT; what was wrong with it. */
enum conf_verdict {
	CONF_GOOD, CONF_NO_MEMORY, CONF_OUT_OF_RANGE, CONF_PART_OF_SECOND, CONF_ODD_SIZE,
	CONF_NO_NUMBER, CONF_NO_SIZE, CONF_NO_TIME, CONF_NO_TRUTH, CONF_NO_WORD, CONF_EMPTY,
	CONF_TOO_LONG, CONF_NOT_PRINTABLE, CONF_RELATIVE, CONF_NO_URI, CONF_TOO_MANY,
	CONF_NO_SERVERS, CONF_NAME,
};
enum conf_verdict conf_set_value(const struct conf_key *key, struct device_keys *k,
				 const char *text);

/* Write the sentence ERROR, return R. */
_printf_(3, 4)
int conf_fail(char error[static CONF_ERROR_MAX], int r, const char *format, ...);

/* Say that there is no such key, or why it is refused; EXTRA: as conf_nearest.  -EINVAL. */
int conf_unknown(const char *name, const char *const *extra, char error[static CONF_ERROR_MAX]);
/* The readers' own key `auto`.  0 or -EINVAL with a sentence. */
int conf_set_auto(bool *automatic, const char *text, char error[static CONF_ERROR_MAX]);

#define conf_member(k, key, type) ((type *)((char *)(k) + (key)->offset))

/* One file being read. */
struct conf_reader {
	struct conf *conf;
	const char *file;
	size_t first_problem;		/* of this file, in conf->problems */
	char *next, *end;		/* text not read yet */
	unsigned line;			/* that conf_next_line gave last; from 1 */
};

/* Check that T, which was read, is a text of sane size.  1 when there is text to parse, 0
 * when not (missing, or a problem was recorded), -ENOMEM. */
int conf_take(struct conf_reader *r, struct conf_text *t);
/* The next line, NUL-terminated, without its end of line; LEN tells of NUL bytes inside. */
bool conf_next_line(struct conf_reader *r, char **ret, size_t *ret_len);

/* Record a problem, in the order of lines: what a section lacks as a whole is told only of
 * one without other problems.  DEVICE (or NULL) is left out for it when FATAL.  0, -ENOMEM,
 * or -E2BIG: enough of this file. */
_printf_(5, 6) _must_check_
int conf_problem(struct conf_reader *r, unsigned line, bool fatal, const char *device,
		 const char *format, ...);
void conf_free_problem(struct conf_problem *p);
/* Has a fatal problem been recorded for the device of this name? */
bool conf_left_out(const struct conf *c, const char *name);
/* Take out the devices of fatal problems. */
void conf_drop_left_out(struct conf *c);
/* The device of that name or, when >= 0, index, among all that were read so far. */
struct conf_device *conf_find_rival(const struct conf *c, const char *name, int index);
/* Append an empty device with default keys; NAME is copied.  -ENOMEM, -E2BIG. */
_must_check_
int conf_add_device(struct conf_reader *r, const char *name, int index,
		    struct conf_device **ret);

/* Both readers: 0, -ENOMEM, -E2BIG (enough of this file). */
_must_check_ int conf_read_nbdtab(struct conf_reader *r);
_must_check_ int conf_read_nbdd_conf(struct conf_reader *r);

#define CONF_QUOTED_MAX 128
/* TEXT, escaped and shortened for a message. */
char *conf_quote(char buf[static CONF_QUOTED_MAX], const char *text);
