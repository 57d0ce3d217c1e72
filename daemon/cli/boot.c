/* Attaching what the kernel's command line names, in an initramfs. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "conf/conf.h"
#include "daemon/cli/cli.h"
#include "daemon/cli/start.h"
#include "lib/util/cleanup.h"
#include "lib/util/clock.h"
#include "lib/util/units.h"

#define COMMAND_LINE	"/proc/cmdline"
#define RETRY_USEC	USEC_PER_SEC
#define REMIND_USEC	(30 * USEC_PER_SEC)

enum { OPTION_WAIT, OPTION_PRINT, OPTION_DRACUT };

/* ---- what it names ----------------------------------------------------------------- */

static void print_device(FILE *out, const struct conf_device *d)
{
	fprintf(out, "[%s]\n", d->name);
	if (d->index >= 0)
		fprintf(out, "device = /dev/nbd%d\n", d->index);
	for (size_t i = 0; i < n_conf_keys; i++) {
		_cleanup_free_ char *text = NULL;

		if (device_keys_given(&d->keys, conf_keys[i].name) &&
		    device_keys_get(&d->keys, conf_keys[i].name, &text) == 0 && text)
			fprintf(out, "%s = %s\n", conf_keys[i].name, text);
	}
}

static void print_conf(FILE *out, const struct conf *c)
{
	for (size_t i = 0; i < c->n_devices; i++)
		print_device(out, &c->devices[i]);
}

/* As a word of the shell. */
static void print_word(const char *name, const char *text)
{
	printf("%s='", name);
	for (; text && *text; text++)
		if (*text == '\'')
			fputs("'\\''", stdout);
		else
			putchar(*text);
	puts("'");
}

static void print_dracut(const struct conf_boot *b)
{
	print_word("nbdd_root", b->root);
	print_word("nbdd_fstype", b->fstype);
	print_word("nbdd_flags", b->root_flags);
}

/* ---- attaching --------------------------------------------------------------------- */

/* The daemon reads it, and so do people who wonder.  In RUNTIME_DIR itself others than root
 * may write, once the system runs. */
static int write_conf(const struct cli *cli, const struct conf *c, char **ret_path)
{
	_cleanup_free_ char *directory = NULL, *path = NULL;
	mode_t old;
	FILE *f;
	int r;

	if (asprintf(&directory, "%s" ROOTS_SUFFIX, cli->runtime_dir) < 0 ||
	    asprintf(&path, "%s/boot.conf", directory) < 0)
		return cli_error(cli, CLI_FAILED, "boot: %s", strerror(ENOMEM));
	mkdir(directory, 0755);
	old = umask(077);
	f = fopen(path, "we");
	umask(old);
	if (!f)
		return cli_error(cli, CLI_FAILED, "boot: cannot write %s: %s", path,
				 strerror(errno));
	print_conf(f, c);
	r = ferror(f) | fclose(f);
	if (r)
		return cli_error(cli, CLI_FAILED, "boot: cannot write %s", path);
	*ret_path = STEAL_PTR(path);
	return CLI_OK;
}

static bool is_attached(int index)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/block/nbd%d/pid", index);
	return index >= 0 && access(path, F_OK) == 0;
}

static int on_reply(struct json_object *params, void *userdata)
{
	return 0;
}

static bool on_error(const char *name, struct json_object *params, void *userdata)
{
	bool *quiet = userdata;

	return *quiet;
}

/* One attempt; the daemon goes on trying by itself in any case. */
static int try_attach(const struct cli *cli, const struct conf_device *d, bool quiet)
{
	struct json_object *params = cli_must(json_object_new_object());

	json_object_object_add(params, "name",
			       cli_must(json_object_new_string(d->name)));
	return manager_call(cli, &(struct manager_request){
		.method = "Attach", .params = params, .reply = on_reply,
		.error = on_error, .userdata = &quiet });
}

/* An error is told at once and then every now and then. */
static int wait_attached(const struct cli *cli, const struct conf_device *d,
			 uint64_t deadline_usec)
{
	uint64_t told = 0;
	bool quiet;
	int r;

	for (;;) {
		quiet = told && usec_sub(now_usec(), told) < REMIND_USEC;
		if (!quiet)
			told = now_usec();
		r = try_attach(cli, d, quiet);
		if (r == CLI_OK || is_attached(d->index))
			return CLI_OK;
		if (now_usec() >= deadline_usec)
			return r;
		usleep(RETRY_USEC);
	}
}

static int attach_all(const struct cli *cli, const struct conf_boot *b,
		      uint64_t deadline_usec)
{
	_cleanup_free_ char *path = NULL;
	int r = write_conf(cli, b->conf, &path);

	if (r == CLI_OK)
		r = cli_start_daemon(cli, &(struct start_spec){ .config = path,
								.mark = true });
	for (size_t i = 0; i < b->conf->n_devices && r == CLI_OK; i++)
		if (!b->conf->devices[i].nofail)
			r = wait_attached(cli, &b->conf->devices[i], deadline_usec);
	/* What the boot can do without does not hold up what it needs. */
	for (size_t i = 0; i < b->conf->n_devices && r == CLI_OK; i++)
		if (b->conf->devices[i].nofail)
			(void)try_attach(cli, &b->conf->devices[i], false);
	return r;
}

/* ---- the verb ---------------------------------------------------------------------- */

static int parse_wait(const struct cli *cli, const char *text, uint64_t *ret_deadline)
{
	uint64_t usec = USEC_INFINITY;

	if (text && parse_usec(text, &usec) < 0)
		return cli_error(cli, CLI_USAGE, "boot: --wait takes a time, such as 5min, or "
				 "infinity");
	*ret_deadline = usec_add(now_usec(), usec);
	return CLI_OK;
}

static int run(const struct cli *cli, const struct cli_arguments *a,
	       const struct conf_boot *b)
{
	uint64_t deadline = USEC_INFINITY;
	size_t errors = conf_print_problems(b->conf, stderr);
	int r = parse_wait(cli, a->options[OPTION_WAIT], &deadline);

	if (r != CLI_OK)
		return r;
	if (!b->conf->n_devices)
		return errors ? CLI_FAILED : CLI_NO_DEVICE;
	if (a->options[OPTION_PRINT])
		print_conf(stdout, b->conf);
	else if (a->options[OPTION_DRACUT])
		print_dracut(b);
	else
		r = attach_all(cli, b, deadline);
	return r == CLI_OK && errors ? CLI_FAILED : r;
}

int verb_boot(struct cli *cli, const struct cli_arguments *a)
{
	struct conf_boot b;
	int r = conf_read_boot(a->n_words ? a->words[0] : COMMAND_LINE, &b);

	if (r < 0)
		return cli_error(cli, CLI_FAILED, "boot: %s", strerror(-r));
	r = run(cli, a, &b);
	conf_boot_deinit(&b);
	return r;
}
