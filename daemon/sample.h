/* What a device's data is known by: digests of a few of its blocks. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "lib/util/macro.h"

#define SAMPLES_MAX	32
#define SAMPLE_BYTES	4096u		/* of one block, or all of a smaller device */
#define SAMPLE_DIGEST	32		/* bytes; SHA-256 */

struct sample {
	uint64_t offset;
	uint32_t len;
};

struct samples {
	uint32_t n;
	struct sample list[SAMPLES_MAX];	/* in ascending order */
};

/* Of the blocks of a struct samples, in their order. */
struct digests {
	uint32_t n;			/* 0: none were read */
	uint64_t slowest_usec;		/* of the reads */
	uint8_t list[SAMPLES_MAX][SAMPLE_DIGEST];
};

/* The first blocks, where filesystems and partition tables say who they are, the last ones,
 * and some in the middle. */
void samples_choose(struct samples *ret, uint64_t size, uint32_t block_size);

/* Reads one block into BUF, which is aligned for O_DIRECT: 0 or -errno. */
typedef int (*sample_read_fn)(void *buf, const struct sample *s, void *arg);
_must_check_ int samples_digest(const struct samples *s, sample_read_fn read, void *arg,
				struct digests *ret);

struct comparison {
	uint32_t different, changing;	/* blocks */
	uint64_t first_different;	/* offset */
};
/* THEIRS was read after BEFORE and before AFTER, which are ours.  A block is the same when
 * theirs is what ours was at either time; it is changing when ours was not the same at both,
 * for then somebody writes it.  S keeps the blocks that are not known to be the same. */
void samples_compare(struct samples *s, const struct digests *before,
		     const struct digests *theirs, const struct digests *after,
		     struct comparison *ret);
