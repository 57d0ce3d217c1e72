/* verifier [OPTIONS] PATH: writes to a file or device, reads back, and knows what must be
 * there.
 *
 *   --size=BYTES    of the file, which is made; default: that of the device
 *   --jobs=N        processes, each with its own part of the blocks; default 2
 *   --seconds=N     end after N seconds; default: at SIGTERM
 *   --direct        O_DIRECT; default: page cache, with an fsync after every 16 writes
 *   --rests         each job rests 50 ms after 8 operations: where a test waits for much else,
 *                   which shares one CPU with the load
 *   --busy          each job begins the next operation at once; default: after a pause as long as
 *                   the last one took, so that there is a CPU for what is tested
 *   --log=FILE      keep what was acknowledged in FILE
 *   --check         write nothing: check all blocks of PATH against the FILE of --log
 *
 * Each block of 4096 bytes holds a sequence number and words computed from it, so a block
 * that is old, torn or somebody else's is told from the right one.  A write that failed, or
 * was not yet synced, leaves both the old and the new contents allowed.
 *
 * Every 100 ms a line of JSON goes to stdout, and one with "final":true at the end: `at_ms` is
 * the time since boot, `oldest_ms` the age of the oldest operation in flight, `longest_ms`
 * the longest that one took.  Exit status 0: no error and no mismatch. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/fs.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "lib/util/clock.h"
#include "lib/util/macro.h"
#include "lib/util/units.h"

#define BLOCK		4096u
#define WORDS		(BLOCK / sizeof(uint64_t))
#define JOBS_MAX	16u
#define BLOCKS_MAX	(1u << 20)
#define SYNC_EVERY	16u		/* writes through the page cache */
#define BURST		8u		/* operations between two rests */
#define REST_USEC	50000u
#define PAUSE_MAX_USEC	10000u		/* between two operations */
#define TICK_NSEC	(100 * 1000 * 1000)
#define COMPLAINTS_MAX	10u

/* What a block may hold: any sequence number from `acked` to `issued`. */
struct block {
	uint32_t acked, issued;
};

/* Counters of one job, in memory that the parent sees. */
struct job {
	_Atomic uint64_t reads, writes, errors, mismatches, longest_usec;
	_Atomic uint64_t since_usec;		/* when the operation in flight began, or 0 */
	_Atomic int first_error;
};

struct shared {
	_Atomic bool stop;
	struct job jobs[JOBS_MAX];
};

struct verifier {
	const char *path, *log;
	uint64_t size, seconds;
	uint32_t n_blocks, n_jobs;
	bool direct, check, rests, busy;
	struct shared *shared;
	struct block *blocks;
};

/* One job's view: blocks first, first + n_jobs, … */
struct worker {
	const struct verifier *v;
	struct job *job;
	uint32_t first;
	int fd;
	uint64_t random;
	uint64_t *buf;
	uint32_t unsynced[SYNC_EVERY];
	uint32_t n_unsynced;
};

static _noreturn_ void die(const char *what)
{
	fprintf(stderr, "verifier: %s: %s\n", what, strerror(errno));
	exit(2);
}

/* splitmix64: every word of every version of every block is another one. */
static uint64_t mix(uint64_t x)
{
	x += UINT64_C(0x9e3779b97f4a7c15);
	x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
	return x ^ (x >> 31);
}

static void fill(uint64_t *buf, uint32_t block, uint32_t seq)
{
	uint64_t key = mix((uint64_t)block << 32 | seq);

	buf[0] = seq;
	for (size_t i = 1; i < WORDS; i++)
		buf[i] = mix(key + i);
}

/* ---- operations, timed */

static void begin(struct worker *w)
{
	w->job->since_usec = now_usec();
}

static bool end(struct worker *w, bool good, const char *what, uint32_t block)
{
	uint64_t took = now_usec() - w->job->since_usec;
	int error = good ? 0 : errno;

	w->job->since_usec = 0;
	if (took > w->job->longest_usec)
		w->job->longest_usec = took;
	if (good)
		return true;
	if (w->job->errors++ == 0)
		w->job->first_error = error;
	if (w->job->errors <= COMPLAINTS_MAX)
		fprintf(stderr, "verifier: %s block %u: %s\n", what, block, strerror(error));
	usleep(10000);		/* a device that fails at once is not asked in a tight loop */
	return false;
}

static void mismatch(struct worker *w, uint32_t block, const char *what, uint64_t found)
{
	const struct block *b = &w->v->blocks[block];

	if (w->job->mismatches++ < COMPLAINTS_MAX)
		fprintf(stderr, "verifier: MISMATCH block %u: %s %llu, allowed %u..%u\n", block,
			what, (unsigned long long)found, b->acked, b->issued);
}

static void read_block(struct worker *w, uint32_t block)
{
	const struct block *b = &w->v->blocks[block];
	uint64_t seq, key;
	bool good;

	begin(w);
	good = pread(w->fd, w->buf, BLOCK, (off_t)block * BLOCK) == BLOCK;
	if (!end(w, good, "read", block))
		return;
	w->job->reads++;
	seq = w->buf[0];
	if (b->acked == 0 && seq == 0)
		return;			/* never successfully written */
	if (seq < b->acked || seq > b->issued) {
		if (b->acked)		/* else it holds what was there before us */
			mismatch(w, block, "sequence", seq);
		return;
	}
	key = mix((uint64_t)block << 32 | seq);
	for (size_t i = 1; i < WORDS; i++)
		if (w->buf[i] != mix(key + i)) {
			mismatch(w, block, "wrong word at byte", i * sizeof(uint64_t));
			return;
		}
}

static void sync_blocks(struct worker *w)
{
	begin(w);
	if (end(w, fsync(w->fd) == 0, "fsync after", w->unsynced[0]))
		for (uint32_t i = 0; i < w->n_unsynced; i++) {
			struct block *b = &w->v->blocks[w->unsynced[i]];

			b->acked = b->issued;
		}
	w->n_unsynced = 0;
	/* What is read from now on comes from the device. */
	posix_fadvise(w->fd, 0, 0, POSIX_FADV_DONTNEED);
}

static void write_block(struct worker *w, uint32_t block)
{
	struct block *b = &w->v->blocks[block];
	bool good;

	fill(w->buf, block, ++b->issued);
	begin(w);
	good = pwrite(w->fd, w->buf, BLOCK, (off_t)block * BLOCK) == BLOCK;
	if (!end(w, good, "write", block))
		return;
	w->job->writes++;
	if (w->v->direct) {
		b->acked = b->issued;
		return;
	}
	w->unsynced[w->n_unsynced++] = block;
	if (w->n_unsynced == SYNC_EVERY)
		sync_blocks(w);
}

/* ---- a job */

static int open_path(const struct verifier *v)
{
	int how = (v->check ? O_RDONLY : O_RDWR | O_CREAT) | (v->direct ? O_DIRECT : 0);
	int fd = open(v->path, how | O_CLOEXEC, 0644);

	if (fd < 0)
		die(v->path);
	return fd;
}

static void check_all(struct worker *w)
{
	if (!w->v->direct && !w->v->check)
		sync_blocks(w);
	posix_fadvise(w->fd, 0, 0, POSIX_FADV_DONTNEED);
	for (uint32_t b = w->first; b < w->v->n_blocks; b += w->v->n_jobs)
		if (w->v->blocks[b].issued)
			read_block(w, b);
}

static _noreturn_ void work(const struct verifier *v, uint32_t number)
{
	struct worker w = { .v = v, .job = &v->shared->jobs[number], .first = number };
	uint32_t mine = (v->n_blocks - number + v->n_jobs - 1) / v->n_jobs;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	signal(SIGTERM, SIG_IGN);
	w.fd = open_path(v);
	w.random = mix(number + now_usec());
	if (posix_memalign((void **)&w.buf, BLOCK, BLOCK))
		die("memory");
	for (uint32_t n = 1; !v->check && !v->shared->stop; n++) {
		w.random = mix(w.random);
		uint32_t block = number + (w.random >> 1) % mine * v->n_jobs;
		uint64_t begun = now_usec();

		if (w.random & 1 && v->blocks[block].issued)
			read_block(&w, block);
		else
			write_block(&w, block);
		if (v->rests && n % BURST == 0)
			usleep(REST_USEC);
		else if (!v->rests && !v->busy)
			usleep((useconds_t)MIN(now_usec() - begun, PAUSE_MAX_USEC));
	}
	check_all(&w);
	_exit(0);
}

/* ---- the parent */

static void report(const struct verifier *v, bool final)
{
	uint64_t reads = 0, writes = 0, errors = 0, mismatches = 0, longest = 0, oldest = 0;
	uint64_t now = now_usec();
	int first_error = 0;

	for (uint32_t i = 0; i < v->n_jobs; i++) {
		struct job *j = &v->shared->jobs[i];
		uint64_t since = j->since_usec;

		reads += j->reads;
		writes += j->writes;
		errors += j->errors;
		mismatches += j->mismatches;
		longest = MAX(longest, (uint64_t)j->longest_usec);
		oldest = since ? MAX(oldest, usec_sub(now, since)) : oldest;
		first_error = first_error ? first_error : j->first_error;
	}
	printf("{\"at_ms\":%llu,\"ops\":%llu,\"reads\":%llu,\"writes\":%llu,\"errors\":%llu,"
	       "\"mismatches\":%llu,\"longest_ms\":%llu,\"oldest_ms\":%llu,"
	       "\"first_error\":\"%s\",\"final\":%s}\n",
	       (unsigned long long)now / 1000, (unsigned long long)(reads + writes),
	       (unsigned long long)reads,
	       (unsigned long long)writes, (unsigned long long)errors,
	       (unsigned long long)mismatches, (unsigned long long)longest / 1000,
	       (unsigned long long)oldest / 1000,
	       first_error ? strerrorname_np(first_error) : "", final ? "true" : "false");
	fflush(stdout);
	if (final)
		exit(errors || mismatches ? 1 : 0);
}

static void supervise(const struct verifier *v)
{
	const struct timespec tick = { .tv_nsec = TICK_NSEC };
	uint64_t until = v->seconds ? now_usec() + v->seconds * USEC_PER_SEC : USEC_INFINITY;
	uint32_t running = v->n_jobs;
	sigset_t term;

	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	while (running) {
		int status;

		if (sigtimedwait(&term, NULL, &tick) == SIGTERM || now_usec() >= until)
			v->shared->stop = true;
		while (running && waitpid(-1, &status, WNOHANG) > 0) {
			if (status) {
				fprintf(stderr, "verifier: a job ended with status 0x%x\n", status);
				exit(2);
			}
			running--;
		}
		if (running)
			report(v, false);
	}
	report(v, true);
}

static void *share_memory(size_t size, const char *file)
{
	int fd = file ? open(file, O_RDWR | O_CREAT | O_CLOEXEC, 0644) : -1;
	void *p;

	if (file && (fd < 0 || ftruncate(fd, size) < 0))
		die(file);
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | (file ? 0 : MAP_ANONYMOUS), fd,
		 0);
	if (p == MAP_FAILED)
		die("memory");
	if (file)
		close(fd);
	return p;
}

static void set_size(struct verifier *v)
{
	int fd = open_path(v);
	struct stat st;

	if (fstat(fd, &st) < 0)
		die(v->path);
	if (S_ISBLK(st.st_mode)) {
		if (!v->size && ioctl(fd, BLKGETSIZE64, &v->size) < 0)
			die(v->path);
	} else if (v->check) {
		v->size = v->size ? v->size : (uint64_t)st.st_size;
	} else if (ftruncate(fd, v->size) < 0) {
		die(v->path);
	}
	close(fd);
	v->n_blocks = MIN(v->size / BLOCK, (uint64_t)BLOCKS_MAX);
	if (v->n_blocks < v->n_jobs) {
		fprintf(stderr, "verifier: %s: too small\n", v->path);
		exit(2);
	}
}

static void parse(struct verifier *v, int argc, char **argv)
{
	static const struct option options[] = {
		{ "size", 1, NULL, 's' }, { "jobs", 1, NULL, 'j' }, { "seconds", 1, NULL, 't' },
		{ "log", 1, NULL, 'l' }, { "direct", 0, NULL, 'd' }, { "check", 0, NULL, 'c' },
		{ "rests", 0, NULL, 'r' }, { "busy", 0, NULL, 'b' },
		{ NULL },
	};
	int c, r = 0;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (c) {
		case 's': r |= parse_size(optarg, &v->size); break;
		case 'j': r |= parse_u32(optarg, &v->n_jobs); break;
		case 't': r |= parse_u64(optarg, &v->seconds); break;
		case 'l': v->log = optarg; break;
		case 'd': v->direct = true; break;
		case 'c': v->check = true; break;
		case 'r': v->rests = true; break;
		case 'b': v->busy = true; break;
		default: r = -EINVAL;
		}
	}
	if (r || argc - optind != 1 || !v->n_jobs || v->n_jobs > JOBS_MAX ||
	    (v->check && !v->log)) {
		fprintf(stderr, "usage: verifier [--size=BYTES] [--jobs=1..%u] [--seconds=N] "
			"[--direct] [--rests|--busy] [--log=FILE [--check]] PATH\n", JOBS_MAX);
		exit(2);
	}
	v->path = argv[optind];
}

int main(int argc, char **argv)
{
	struct verifier v = { .n_jobs = 2 };
	sigset_t term;

	parse(&v, argc, argv);
	set_size(&v);
	sigemptyset(&term);
	sigaddset(&term, SIGTERM);
	sigprocmask(SIG_BLOCK, &term, NULL);
	v.shared = share_memory(sizeof(*v.shared), NULL);
	v.blocks = share_memory(v.n_blocks * sizeof(*v.blocks), v.log);
	for (uint32_t i = 0; i < v.n_jobs; i++) {
		pid_t pid = fork();

		if (pid < 0)
			die("fork");
		if (pid == 0)
			work(&v, i);
	}
	supervise(&v);
}
