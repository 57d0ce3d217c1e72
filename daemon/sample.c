#include "daemon/sample.h"

#include <errno.h>
#include <gnutls/crypto.h>
#include <stdbool.h>
#include <string.h>

#include "lib/util/clock.h"

#define HEAD_BLOCKS	12u
#define TAIL_BLOCKS	3u
#define MIDDLE_BLOCKS	16u
#define BTRFS_OFFSET	(64u << 10)	/* of its superblock */
_Static_assert(HEAD_BLOCKS + 1 + MIDDLE_BLOCKS + TAIL_BLOCKS <= SAMPLES_MAX, "must fit");
_Static_assert(SAMPLE_DIGEST == 32, "as long as a SHA-256");

/* In ascending order; what would overlap the one before, or the end, is left out. */
static void add(struct samples *s, uint64_t offset, uint64_t size)
{
	const struct sample *last = s->n ? &s->list[s->n - 1] : NULL;
	uint32_t len = (uint32_t)MIN(size, (uint64_t)SAMPLE_BYTES);

	if (offset > size - len || (last && offset < last->offset + last->len))
		return;
	s->list[s->n++] = (struct sample){ .offset = offset, .len = len };
}

void samples_choose(struct samples *ret, uint64_t size, uint32_t block_size)
{
	struct samples s = {};

	for (uint64_t i = 0; i < HEAD_BLOCKS; i++)
		add(&s, i * SAMPLE_BYTES, size);
	add(&s, BTRFS_OFFSET, size);
	for (uint64_t i = 1; i <= MIDDLE_BLOCKS; i++) {
		uint64_t offset = size / (MIDDLE_BLOCKS + 1) * i;

		add(&s, offset - offset % SAMPLE_BYTES, size);
	}
	for (uint64_t i = TAIL_BLOCKS; i > 0 && size >= TAIL_BLOCKS * SAMPLE_BYTES; i--)
		add(&s, size - size % block_size - i * SAMPLE_BYTES, size);
	*ret = s;
}

int samples_digest(const struct samples *s, sample_read_fn read, void *arg,
		   struct digests *ret)
{
	_Alignas(SAMPLE_BYTES) char block[SAMPLE_BYTES];
	struct digests d = {};

	for (; d.n < s->n; d.n++) {
		uint64_t since = now_usec();
		int r = read(block, &s->list[d.n], arg);

		if (r < 0)
			return r;
		d.slowest_usec = MAX(d.slowest_usec, now_usec() - since);
		if (gnutls_hash_fast(GNUTLS_DIG_SHA256, block, s->list[d.n].len,
				     d.list[d.n]) < 0)
			return -EOPNOTSUPP;
	}
	*ret = d;
	return 0;
}

static bool same(const struct digests *a, const struct digests *b, uint32_t i)
{
	return i < a->n && i < b->n && memcmp(a->list[i], b->list[i], SAMPLE_DIGEST) == 0;
}

void samples_compare(struct samples *s, const struct digests *before,
		     const struct digests *theirs, const struct digests *after,
		     struct comparison *ret)
{
	struct comparison c = {};
	struct samples left = {};

	for (uint32_t i = 0; i < s->n; i++) {
		if (same(before, theirs, i) || same(after, theirs, i))
			continue;
		left.list[left.n++] = s->list[i];
		if (!same(before, after, i))
			c.changing++;
		else if (c.different++ == 0)
			c.first_different = s->list[i].offset;
	}
	*s = left;
	*ret = c;
}
