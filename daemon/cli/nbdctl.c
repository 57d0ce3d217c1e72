/* nbdctl: the verbs, and what stands before them. */
#include <errno.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/cli/cli.h"
#include "lib/util/escape.h"

#define DEVICE_WORDS "/dev/nbdN, nbdN, or the name that it was given"

const struct cli_verb cli_verbs[] = {
	{ "attach", "[URI|NAME] [--device=/dev/nbdN] [--name=NAME] [--KEY=VALUE ...]",
	  "Attach an export and print its device.",
	  "URI is an NBD URI; NAME, or /dev/nbdN, a device of nbdd.conf or nbdtab. With "
	  "--addresses, which may name several servers, neither is needed. "
	  "The command returns when the device is ready for use, or says why it is not. "
	  "What is attached already, under the same name from the same server, is a "
	  "success.",
	  { { "device", "/dev/nbdN", "The device to use; by default a free one." },
	    { "name", "NAME", "A name for the device, by which other commands know it." } },
	  0, 1, "", verb_attach },
	{ "detach", "DEVICE [--force]", "Detach a device.",
	  "DEVICE is " DEVICE_WORDS ". A device that is mounted or otherwise in use stays, "
	  "and the command says who holds it; one that cannot be flushed stays, too.",
	  { { "force", NULL, "Detach even a device in use. Its users get I/O errors from "
	      "then on, and what they have not yet written is lost: a filesystem may need "
	      "a check and programs may lose data." } },
	  1, 1, NULL, verb_detach },
	{ "status", "[DEVICE] [--json | --watch | --prometheus [--output=FILE]]",
	  "Show the devices and how they are.",
	  "DEVICE is " DEVICE_WORDS "; with it, everything that is known of this one.",
	  { { "json", NULL, "Print a JSON array with one object for each device." },
	    { "watch", NULL, "Go on showing them with rate, latency and outages, until q." },
	    { "prometheus", NULL, "Print metrics of all devices for Prometheus." },
	    { "output", "FILE", "Write the metrics to FILE, in one step; nbdd_up is 0 there "
	      "when nbdd does not run." } },
	  0, 1, NULL, verb_status },
	{ "list", "URI [--json] [--tls-KEY=VALUE ...]", "List the exports of a server.", NULL,
	  { { "json", NULL, "Print a JSON object." } },
	  1, 1, "tls", verb_list },
	{ "info", "URI [--json] [--tls-KEY=VALUE ...]",
	  "Show what a server says of an export.", NULL,
	  { { "json", NULL, "Print a JSON object." } },
		  1, 1, "tls", verb_info },
	{ "map", "URI|DEVICE [--context=NAME,...] [--json | --svg] "
	  "[--tls-KEY=VALUE ...]",
	  "Show what the blocks of an export are: data, holes, dirty.",
	  "A picture of each of the server's meta contexts, with the size of each kind. "
	  "DEVICE is " DEVICE_WORDS "; its server is asked.",
	  { { "context", "NAME,...", "Only these meta contexts, such as base:allocation." },
	    { "json", NULL, "Print a JSON object with every extent." },
	    { "svg", NULL, "Print a drawing." } },
	  1, 1, "tls", verb_map },
	{ "reconnect", "DEVICE", "Drop a device's connections and make new ones now.",
	  "DEVICE is " DEVICE_WORDS ". I/O waits meanwhile; none fails.",
	  {}, 1, 1, NULL, verb_reconnect },
	{ "hold", "NAME", "Attach a configured device and stay as long as it is attached.",
	  "NAME is that of a device of nbdd.conf or nbdtab, or /dev/nbdN. A server that "
	  "cannot be reached is tried until it can. SIGTERM detaches the device, as soon as "
	  "nothing uses it; a device that holds the root filesystem stays. This is what "
	  "nbd@.service runs.",
	  {}, 1, 1, NULL, verb_hold },
	{ "move", "DEVICE [URI] [--force] [--json] [--KEY=VALUE ...]",
	  "Move an attached device to another server, while it is in use.",
	  "DEVICE is " DEVICE_WORDS ". The new server is reached first, and its export must "
	  "have the device's size, flags and data: some blocks are read from it and compared "
	  "with what the device has. Then I/O waits for about a second at most, and goes on "
	  "there; none fails. If anything is wrong the device stays where it was. "
	  "Without a URI the keys say what changes, such as --addresses; without any, the "
	  "device goes to the first of its own servers.",
	  { { "force", NULL, "Do not compare the data, and move even if the old server cannot "
	      "be flushed. What the two do not have in common is corrupted for whoever uses "
	      "the device." },
	    { "json", NULL, "Print a JSON object." } },
	  1, 2, "", verb_move },
	{ "reload", "[--json]", "Read nbdd.conf and nbdtab anew and follow what has changed.",
	  "Each device is changed with the least disturbance: at once where no new connection "
	  "is needed, else by a move with its checks. New devices are attached. What takes a "
	  "detach, or is no longer in the files, is told and left alone. A file with an "
	  "error changes nothing.",
	  { { "json", NULL, "Print a JSON object." } },
	  0, 0, NULL, verb_reload },
	{ "events", "[DEVICE] [--json]", "Print what happens to devices, as it happens.",
	  "DEVICE is " DEVICE_WORDS ". One line for each event, until interrupted; nbdctl(8) "
	  "lists them. A daemon that is restarted or replaced is followed further.",
	  { { "json", NULL, "Print a JSON object in each line." } },
	  0, 1, NULL, verb_events },
	{ "udev", "nbdN", "Print a device's name for udev's rules.", NULL,
	  {}, 1, 1, NULL, verb_udev },
	{ "check", "[FILE]", "Check nbdd.conf and nbdtab, or FILE.",
	  "Each problem is printed with its file and line. A problem costs the device of "
	  "its line only; the others work.",
	  {}, 0, 1, NULL, verb_check },
	{ "boot", "[FILE] [--wait=TIME | --print | --dracut]",
	  "Attach what the kernel's command line names.",
	  "For an initramfs: FILE is /proc/cmdline, or like it. The daemon is started if "
	  "none runs, and the command returns when every device is attached; one whose server "
	  "is away is tried until then. The exit status is 4 when the line names no device. "
	  "nbdd.boot(7) lists the parameters.",
	  { { "wait", "TIME", "Give up after this time; by default never." },
	    { "print", NULL, "Only print what the line names, as for nbdd.conf." },
	    { "dracut", NULL, "Only print what dracut wants to know, for a shell." } },
	  0, 1, NULL, verb_boot },
	{ "help", "[VERB]", "Show help.", NULL, {}, 0, 1, NULL, verb_help },
};
const size_t n_cli_verbs = ARRAY_SIZE(cli_verbs);

const struct cli_verb *cli_find_verb(const char *name)
{
	for (size_t i = 0; i < n_cli_verbs; i++)
		if (strcmp(cli_verbs[i].name, name) == 0)
			return &cli_verbs[i];
	return NULL;
}

static int run_verb(struct cli *cli, const struct cli_verb *verb, char **argv)
{
	struct cli_arguments a = { .n_words = 0 };
	int r = cli_parse(cli, verb, argv, &a);

	if (r == CLI_OK && a.help)
		cli_help_verb(verb);
	else if (r == CLI_OK)
		r = verb->run(cli, &a);
	json_object_put(a.keys);
	return r;
}

/* Options before the verb.  1: go on with the verb at *ARGV, else *RET is the status. */
static int parse_front(struct cli *cli, char ***argv, int *ret)
{
	static const char dir[] = "--runtime-dir";

	for (; **argv && ***argv == '-'; (*argv)++) {
		const char *a = **argv;

		if (strncmp(a, dir, strlen(dir)) == 0 && a[strlen(dir)] == '=') {
			cli->runtime_dir = a + strlen(dir) + 1;
		} else if (strcmp(a, dir) == 0 && (*argv)[1]) {
			cli->runtime_dir = *++*argv;
		} else if (strcmp(a, "--help") == 0 || strcmp(a, "-h") == 0) {
			cli_help();
			*ret = CLI_OK;
			return 0;
		} else if (strcmp(a, "--version") == 0) {
			puts("nbdctl " NBDD_VERSION);
			*ret = CLI_OK;
			return 0;
		} else {
			*ret = cli_error(cli, CLI_USAGE, "there is no option %s before the "
					 "verb (see `nbdctl --help`)", a);
			return 0;
		}
	}
	return 1;
}

static int run(char **argv)
{
	struct cli cli = { .runtime_dir = NBDD_RUNDIR };
	const struct cli_verb *verb;
	char text[128];
	int r;

	if (!parse_front(&cli, &argv, &r))
		return r;
	if (!*argv)
		return cli_error(&cli, CLI_USAGE, "a verb is missing (see `nbdctl --help`)");
	verb = cli_find_verb(*argv);
	if (!verb)
		return cli_error(&cli, CLI_USAGE, "there is no verb `%s` (see `nbdctl --help`)",
				 escape_text(text, sizeof(text), *argv, strlen(*argv)));
	return run_verb(&cli, verb, argv + 1);
}

static bool is_nbd_client(const char *path)
{
	const char *slash = strrchr(path, '/');

	return strcmp(slash ? slash + 1 : path, "nbd-client") == 0;
}

int cli_main(int argc, char **argv)
{
	const char *program = argc && is_nbd_client(argv[0]) ? "nbd-client" : "nbdctl";
	int r;

	/* Text is UTF-8 whatever the user's locale is: names come from elsewhere. */
	setlocale(LC_CTYPE, "C.UTF-8");
	r = strcmp(program, "nbdctl") != 0 ? cli_front(argc, argv) :
					     run(argc ? argv + 1 : argv);
	if (fflush(stdout) == EOF || ferror(stdout)) {
		fprintf(stderr, "%s: cannot write the output: %s\n", program, strerror(errno));
		return CLI_FAILED;
	}
	return r;
}
