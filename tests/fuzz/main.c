/* fuzz_NAME [-n RUNS | -t SECONDS] [-s SEED] FILE-or-DIRECTORY...
 *
 * Gives every file to the fuzz target as it stands, then RUNS inputs made from them, or as
 * many as there is time for, by changing, cutting, repeating and joining parts; the same SEED
 * makes the same inputs.  Input that ends the program, or takes it longer than ten seconds,
 * lies in the file ./crash-input. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "lib/util/clock.h"
#include "tests/fuzz/fuzz.h"

#define INPUT_MAX 8192
#define INPUTS_MAX 1024
#define HANG_SECONDS 10

struct input {
	size_t len;
	uint8_t data[INPUT_MAX];
};

struct fuzzer {
	struct input *inputs[INPUTS_MAX];
	size_t n;
	uint64_t state;
	FILE *last;		/* the input that is being run */
};

static size_t rnd(struct fuzzer *f, size_t below)
{
	/* xorshift64* */
	f->state ^= f->state >> 12;
	f->state ^= f->state << 25;
	f->state ^= f->state >> 27;
	return below ? (size_t)((f->state * 0x2545f4914f6cdd1dull) >> 33) % below : 0;
}

static void add_file(struct fuzzer *f, const char *path)
{
	FILE *file = fopen(path, "re");
	struct input *in = calloc(1, sizeof(*in));

	if (!file || !in || f->n == INPUTS_MAX) {
		perror(path);
		exit(2);
	}
	in->len = fread(in->data, 1, INPUT_MAX, file);
	f->inputs[f->n++] = in;
	fclose(file);
}

static int visible(const struct dirent *e)
{
	return e->d_name[0] != '.';
}

static void add_path(struct fuzzer *f, const char *path)
{
	struct dirent **entries;
	int n = scandir(path, &entries, visible, alphasort);
	char name[4096];

	if (n < 0)
		add_file(f, path);
	for (int i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "%s/%s", path, entries[i]->d_name);
		add_file(f, name);
		free(entries[i]);
	}
	if (n >= 0)
		free(entries);
}

/* Replace CUT bytes at AT by LEN of DATA, as far as there is room. */
static void splice(struct input *in, size_t at, size_t cut, const uint8_t *data, size_t len)
{
	uint8_t tail[INPUT_MAX];
	size_t rest = in->len - at - cut;

	len = len < INPUT_MAX - at ? len : INPUT_MAX - at;
	memcpy(tail, in->data + at + cut, rest);
	if (len)
		memmove(in->data + at, data, len);
	rest = rest < INPUT_MAX - at - len ? rest : INPUT_MAX - at - len;
	memcpy(in->data + at + len, tail, rest);
	in->len = at + len + rest;
}

static void mutate(struct fuzzer *f, struct input *in)
{
	static const uint8_t special[] = "\0\n\r\t =[]#;,:/\\\"\xff\xef\x80\x7f\x1b-_09aA";
	const struct input *other = f->inputs[rnd(f, f->n)];
	size_t at = rnd(f, in->len + 1), left = in->len - at, from, len;
	uint8_t byte;

	switch (rnd(f, 6)) {
	case 0:
		byte = (uint8_t)rnd(f, 256);
		splice(in, at, left ? 1 : 0, &byte, 1);
		break;
	case 1:
		splice(in, at, rnd(f, 2) && left ? 1 : 0, &special[rnd(f, sizeof(special))], 1);
		break;
	case 2:
		splice(in, at, rnd(f, left + 1), NULL, 0);	/* cut */
		break;
	case 3:
		if (left)
			in->data[at] ^= (uint8_t)(1u << rnd(f, 8));
		break;
	case 4:
		from = rnd(f, other->len + 1);
		len = rnd(f, other->len - from + 1);
		splice(in, at, rnd(f, left + 1), other->data + from, len);
		break;
	case 5:
		for (size_t i = rnd(f, 12); i; i--)
			splice(in, at, 0, in->data + at, rnd(f, in->len - at + 1));
		break;
	}
}

/* Run IN from a block of its very size, so that a read past its end is seen. */
static void run(struct fuzzer *f, const struct input *in)
{
	uint8_t *data = malloc(in->len + !in->len);

	if (!data)
		exit(2);
	memcpy(data, in->data, in->len);
	rewind(f->last);
	if (ftruncate(fileno(f->last), 0) < 0 ||
	    fwrite(in->data, 1, in->len, f->last) != in->len || fflush(f->last) != 0)
		exit(2);
	alarm(HANG_SECONDS);
	LLVMFuzzerTestOneInput(data, in->len);
	alarm(0);
	free(data);
}

int main(int argc, char **argv)
{
	struct fuzzer f = { .state = 1 };
	unsigned long runs = 0, done = 0;
	uint64_t until = 0;
	int option;

	while ((option = getopt(argc, argv, "n:s:t:")) != -1) {
		if (option == 'n')
			runs = strtoul(optarg, NULL, 10);
		else if (option == 't')
			until = now_usec() + strtoul(optarg, NULL, 10) * USEC_PER_SEC;
		else if (option == 's')
			f.state = strtoull(optarg, NULL, 10) + 1;
		else
			return 2;
	}
	for (; optind < argc; optind++)
		add_path(&f, argv[optind]);
	f.last = fopen("crash-input", "we");
	if (!f.n || !f.last)
		return 2;
	for (size_t i = 0; i < f.n; i++)
		run(&f, f.inputs[i]);
	for (; done < runs || now_usec() < until; done++) {
		struct input in = *f.inputs[rnd(&f, f.n)];

		for (size_t changes = 1 + rnd(&f, 8); changes; changes--)
			mutate(&f, &in);
		run(&f, &in);
	}
	printf("%zu files, %lu inputs\n", f.n, done);
	fclose(f.last);
	unlink("crash-input");
	for (size_t i = 0; i < f.n; i++)
		free(f.inputs[i]);
	return 0;
}
