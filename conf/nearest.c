/* What did the person who wrote an unknown name mean? */
#include <string.h>

#include "conf/internal.h"

#define WORD_MAX 32	/* longer than any key */

/* Edits (insert, delete, replace, swap neighbours) that turn A into B. */
static unsigned distance(const char *a, const char *b)
{
	unsigned rows[3][WORD_MAX + 1], *before = rows[0], *above = rows[1], *row = rows[2];
	size_t len_a = strlen(a), len_b = strlen(b);

	if (len_a > WORD_MAX || len_b > WORD_MAX)
		return WORD_MAX;
	for (unsigned j = 0; j <= len_b; j++)
		above[j] = before[j] = j;
	for (unsigned i = 1; i <= len_a; i++) {
		unsigned *free_row = before;

		row[0] = i;
		for (unsigned j = 1; j <= len_b; j++) {
			unsigned least = above[j - 1] + (a[i - 1] != b[j - 1]);

			least = MIN(least, above[j] + 1);
			least = MIN(least, row[j - 1] + 1);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
				least = MIN(least, before[j - 2] + 1);
			row[j] = least;
		}
		before = above;
		above = row;
		row = free_row;
	}
	return above[len_b];
}

static void consider(const char *name, const char *candidate, const char **best,
		     unsigned *least)
{
	unsigned d = distance(name, candidate);

	if (d < *least) {
		*least = d;
		*best = candidate;
	}
}

const char *conf_nearest(const char *name, const char *const *extra)
{
	/* A third of the letters may be wrong, but no more than three. */
	unsigned least = MIN((unsigned)strnlen(name, WORD_MAX) / 3, 3u) + 1;
	const char *best = NULL;

	if (least == 1)
		return NULL;
	for (size_t i = 0; i < n_conf_keys; i++)
		consider(name, conf_keys[i].name, &best, &least);
	for (const struct conf_alias *a = conf_aliases; a->name; a++)
		if (!a->refused)
			consider(name, a->name, &best, &least);
	for (; extra && *extra; extra++)
		consider(name, *extra, &best, &least);
	return best;
}
