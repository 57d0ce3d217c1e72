/* The files in RUNTIME_DIR/devices: one a device, written so that there is a whole one at
 * every instant, and so that a full file system stops no later write.
 *
 * The text goes into a spare file, which then changes names with the one that counts.  Both
 * keep their room and stay open: no write after the first makes or opens anything. */
#pragma once

#include <stddef.h>

#include "lib/util/macro.h"

#define STORE_DIR	"devices"
#define STORE_FILES_MAX	4096		/* more are not looked at */

struct owners;
struct store;
struct store_file;

/* Make or take the directory, in which half-done files are removed: 0 or -errno; -EPERM: it
 * is not one of OWNERS' alone. */
_must_check_ int store_open(const char *runtime_dir, const struct owners *owners,
			    struct store **ret);
void store_free(struct store *s);

/* Write the file NAME; *F is NULL before the first time.  0 or -errno (-ENOSPC): then what
 * was there before is still there. */
_must_check_ int store_write(struct store *s, const char *name, const char *text, size_t len,
			     struct store_file **f);
/* Remove it; F may be NULL, and is freed in any case.  1; 0: there was none; or -errno: it is
 * still there. */
int store_remove(struct store *s, const char *name, struct store_file *f);
/* Let go of it, and leave it there. */
void store_file_free(struct store_file *f);

/* Call FN for each file, with the text (not NUL-terminated) or with the reason (-errno, TEXT
 * NULL) that there is none: -EPERM for what is no file of the owners', -EFBIG. */
typedef void (*store_fn)(const char *name, const char *text, size_t len, int error,
			 void *userdata);
int store_foreach(struct store *s, store_fn fn, void *userdata);
