#include <err.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/bench/load.h"

#define PATTERN_PERIOD	(1u << 20)
#define ALIGNMENT	4096

static const struct mode modes[] = {
	{ "sync_r4k", SYNC, READ, 4096, 1, 1 },
	{ "sync_w4k", SYNC, WRITE, 4096, 1, 1 },
	{ "r4k_qd1", POLL, READ, 4096, 1, 1 },
	{ "r4k_qd16", POLL, READ, 4096, 16, 1 },
	{ "r4k_qd64", POLL, READ, 4096, 64, 1 },
	{ "r4k_qd256", POLL, READ, 4096, 256, 1 },
	{ "w4k_qd16", POLL, WRITE, 4096, 16, 1 },
	{ "w4k_qd64", POLL, WRITE, 4096, 64, 1 },
	{ "w4k_qd256", POLL, WRITE, 4096, 256, 1 },
	{ "mix4k_qd64", POLL, MIX, 4096, 64, 1 },
	{ "trim_qd64", POLL, TRIM, 4096, 64, 1 },
	{ "flush_qd64", POLL, FLUSH, 0, 64, 1 },
	{ "r512_qd64", POLL, READ, 512, 64, 1 },
	{ "r16k_qd16", POLL, READ, 16384, 16, 1 },
	{ "r256k_qd8", POLL, READ, 262144, 8, 1 },
	{ "w256k_qd8", POLL, WRITE, 262144, 8, 1 },
	{ "r4k_qd64_peek", PEEK, READ, 4096, 64, 1 },
	{ "r4k_qd1024_peek", PEEK, READ, 4096, 1024, 1 },
	{ "r4k_qd1_x64", LOOP, READ, 4096, 1, 64 },
	{ "r4k_qd4_x64", LOOP, READ, 4096, 4, 64 },
	{ "connect", CONNECT, READ, 0, 0, 1 },
	{ "create", CREATE, READ, 0, 0, 1 },
	{ "memory", MEMORY, READ, 0, 0, 1 },
};

#define N_MODES (sizeof(modes) / sizeof(modes[0]))

bool load_enough(const struct options *o, const struct meter *start, uint64_t ops)
{
	static unsigned asked;

	if (o->operations)
		return ops >= o->operations;
	if (asked++ % 32)
		return false;
	return nsec_of(CLOCK_MONOTONIC) - start->wall_nsec >= o->seconds * 1e9;
}

void load_verify(const uint8_t *p, uint64_t offset, unsigned size)
{
	for (unsigned at = 0; at + 8 <= size; at += 8) {
		uint64_t word;

		memcpy(&word, p + at, 8);
		if (word != (offset + at) % PATTERN_PERIOD)
			errx(1, "wrong data at offset %" PRIu64, offset + at);
	}
}

uint8_t *load_buffers(const struct mode *m)
{
	size_t space = ((size_t)m->depth * m->size / ALIGNMENT + 1) * ALIGNMENT;
	uint8_t *memory = aligned_alloc(ALIGNMENT, space);

	if (!memory)
		err(1, "memory");
	return memset(memory, 0x5a, space);
}

static const struct mode *find_mode(const char *name, const load_runner runners[N_WAYS])
{
	for (size_t i = 0; i < N_MODES; i++)
		if (!strcmp(modes[i].name, name) && runners[modes[i].way])
			return &modes[i];
	errx(2, "no mode %s: see %s -l", name, program_invocation_short_name);
}

static void list_modes(const load_runner runners[N_WAYS])
{
	for (size_t i = 0; i < N_MODES; i++)
		if (runners[modes[i].way])
			puts(modes[i].name);
}

int load_main(int argc, char **argv, const load_runner runners[N_WAYS])
{
	struct options o = { .seconds = 1 };
	const struct mode *m;
	int c;

	while ((c = getopt(argc, argv, "s:n:SVl")) != -1)
		switch (c) {
		case 's': o.seconds = atof(optarg); break;
		case 'n': o.operations = strtoull(optarg, NULL, 0); break;
		case 'S': o.simple = true; break;
		case 'V': o.verify = true; break;
		case 'l': list_modes(runners); return 0;
		default: return 2;
		}
	if (argc - optind != 2)
		errx(2, "usage: %s [-s SECONDS] [-n OPERATIONS] [-S] [-V] MODE URI",
		     program_invocation_short_name);
	m = find_mode(argv[optind], runners);
	o.uri = argv[optind + 1];
	runners[m->way](&o, m);
	return 0;
}
