/* The files are read by a process that may hang: here it is this test. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/child.h"
#include "daemon/device.h"
#include "daemon/fetch.h"
#include "daemon/manager.h"
#include "lib/util/fd.h"
#include "tests/unit/unit.h"

/* ---- a child, when the test has it run ----------------------------------------------- */

static struct {
	struct child_spec spec;
	child_done_fn done;
	void *userdata;
	unsigned started, cancelled;
} child;

__typeof__(child_start) __wrap_child_start;
__typeof__(child_cancel) __wrap_child_cancel;

int __wrap_child_start(sd_event *event, const struct child_spec *spec, child_done_fn done,
		       void *userdata, struct child **ret)
{
	child.spec = *spec;
	child.done = done;
	child.userdata = userdata;
	child.started++;
	(*spec->alive)++;
	*ret = (void *)&child;
	return 0;
}

struct child *__wrap_child_cancel(struct child *c)
{
	child.cancelled += c != NULL;
	return NULL;
}

static void run_child(void)
{
	struct child_answer answer = { .fd = -1 };
	char data[64];
	int pair[2];
	ssize_t n;

	CHECK_INT(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair), 0);
	child.spec.run(pair[1], -1, child.spec.arg);
	n = read(pair[0], data, sizeof(data));
	CHECK(n > 0);
	answer.data = data;
	answer.len = (size_t)n;
	close(pair[0]);
	close(pair[1]);
	child.done(&answer, child.userdata);
}

static void hang_child(void)
{
	child.done(&(struct child_answer){ .error = -ETIMEDOUT, .fd = -1 }, child.userdata);
}

/* ---- the files, and who asks --------------------------------------------------------- */

static char directory[] = "/tmp/nbdd-fetch.XXXXXX";
static char path[64];

static void write_conf(const char *text)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);

	CHECK(fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text));
	close(fd);
}

static void remove_files(void)
{
	unlink(path);
	rmdir(directory);
}

/* With a device, so that nbdd does not read them itself. */
static struct manager *new_manager(void)
{
	static struct device device;
	struct manager *m = calloc(1, sizeof(*m));

	CHECK(m && mkdtemp(directory));
	snprintf(path, sizeof(path), "%s/nbdd.conf", directory);
	atexit(remove_files);
	m->options.config = path;
	m->options.nbdtab = directory;
	m->devices[m->n_devices++] = &device;
	return m;
}

struct asked {
	unsigned told;
	int r;
	struct conf *conf;
};

static void on_fetched(struct manager *m, int r, struct conf *fresh, void *userdata)
{
	struct asked *a = userdata;

	a->told++;
	a->r = r;
	a->conf = fresh;
}

static char *problems(const struct conf *c)
{
	char *text = NULL;
	size_t len;
	FILE *f = open_memstream(&text, &len);

	CHECK(f);
	conf_print_problems(c, f);
	CHECK_INT(fclose(f), 0);
	return text;
}

TEST(what_is_wrong_in_the_files_is_told_as_by_whoever_reads_them_himself)
{
	struct manager *m = new_manager();
	struct asked a = {};
	struct conf *own;

	write_conf("[a]\nuri = nbd://s\n\n[b]\nuri = x\nfrob = 1\n");
	conf_fetch(m, on_fetched, &a);
	CHECK_INT(a.told, 0);
	run_child();
	CHECK_INT(a.told, 1);
	CHECK_INT(a.r, 0);
	CHECK_INT(conf_read(path, directory, &own), 0);
	CHECK_STR(problems(a.conf), problems(own));
	CHECK(strstr(problems(own), "nbdd.conf:5: ") && strstr(problems(own), "a directory"));
	CHECK(conf_find(a.conf, "a"));
}

TEST(who_asks_gets_what_is_in_the_files_then)
{
	struct manager *m = new_manager();
	struct asked a = {}, b = {}, c = {};

	write_conf("[a]\nuri = nbd://s\n");
	conf_fetch(m, on_fetched, &a);
	conf_fetch(m, on_fetched, &b);
	conf_fetch(m, on_fetched, &c);
	CHECK_INT(child.started, 1);
	run_child();
	CHECK(a.told && !b.told && !c.told);
	write_conf("[b]\nuri = nbd://s\n");
	CHECK_INT(child.started, 2);
	run_child();
	CHECK(b.told == 1 && c.told == 1 && b.conf != c.conf);
	CHECK(conf_find(a.conf, "a") && conf_find(b.conf, "b") && conf_find(c.conf, "b"));
}

TEST(one_process_hangs_at_most)
{
	struct manager *m = new_manager();
	struct asked a = {}, b = {}, c = {};

	write_conf("[a]\nuri = nbd://s\n");
	conf_fetch(m, on_fetched, &a);
	hang_child();
	CHECK_INT(a.r, -ETIMEDOUT);
	conf_fetch(m, on_fetched, &b);
	CHECK(b.told == 1 && b.r == -ETIMEDOUT);
	CHECK_INT(child.started, 1);
	*child.spec.alive = 0;		/* it has been reaped */
	conf_fetch(m, on_fetched, &c);
	CHECK_INT(child.started, 2);
	run_child();
	CHECK(c.told == 1 && c.r == 0);
}

TEST(whoever_waits_at_the_end_is_told)
{
	struct manager *m = new_manager();
	struct asked a = {}, b = {};

	write_conf("");
	conf_fetch(m, on_fetched, &a);
	conf_fetch(m, on_fetched, &b);
	conf_fetch_free(m);
	CHECK(a.told == 1 && b.told == 1 && a.r == -ECANCELED && b.r == -ECANCELED);
	CHECK_INT(child.cancelled, 1);
}
