/* status --watch: a screen that follows the devices, or lines when there is no terminal. */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "daemon/cli/cli.h"
#include "lib/util/cleanup.h"
#include "lib/util/clock.h"

/* The alternate screen without a cursor, and back. */
#define SCREEN_BEGIN	"\033[?1049h\033[?25l"
#define SCREEN_END	"\033[?25h\033[?1049l"

struct watch {
	struct json_object *devices;	/* the newest */
	uint64_t received;
	bool detail, screen;
};

/* Nothing but constants is used, so that no state is needed and no signal comes too early:
 * the terminal is put right and the program ends. */
static void on_signal(int sig)
{
	(void)!write(STDOUT_FILENO, SCREEN_END, sizeof(SCREEN_END) - 1);
	_exit(sig == SIGINT ? CLI_OK : 128 + sig);
}

static void on_signal_plain(int sig)
{
	_exit(sig == SIGINT ? CLI_OK : 128 + sig);
}

static void catch_signals(bool screen)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP };
	struct sigaction action = { .sa_handler = screen ? on_signal : on_signal_plain };

	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		sigaction(signals[i], &action, NULL);
}

/* ---- a screen ---------------------------------------------------------------------- */

static void render(const struct watch *w, FILE *out, unsigned width)
{
	uint64_t age = usec_sub(now_usec(), w->received);
	bool colour = terminal_colour(stdout);

	if (!json_object_array_length(w->devices))
		fputs("No devices are attached.\n", out);
	else if (w->detail)
		show_device(out, json_object_array_get_idx(w->devices, 0), colour, age);
	else
		show_devices(out, w->devices, width, colour, age);
}

/* As many lines of TEXT as fit; each ends with an erasure of what stood there before. */
static void print_lines(const char *text, unsigned lines)
{
	fputs("\033[H", stdout);
	for (; *text && lines > 1; lines--) {
		size_t n = strcspn(text, "\n");

		fwrite(text, 1, n, stdout);
		fputs("\033[m\033[K\r\n", stdout);
		text += n + (text[n] == '\n');
	}
	fputs(*text ? "...\033[J" : "\033[J", stdout);
	fflush(stdout);
}

static int draw(void *userdata)
{
	const struct watch *w = userdata;
	_cleanup_free_ char *text = NULL;
	unsigned columns, lines;
	size_t size;
	FILE *memory;

	if (!w->devices)
		return 0;
	terminal_size(stdout, &columns, &lines);
	memory = cli_must(open_memstream(&text, &size));
	render(w, memory, columns);
	if (fclose(memory) == EOF)
		return -ENOMEM;
	print_lines(text, lines);
	return 0;
}

static void end_screen(void *userdata)
{
	struct watch *w = userdata;

	if (w->screen)
		fputs(SCREEN_END, stdout);
	fflush(stdout);
	w->screen = false;
}

/* ---- lines ------------------------------------------------------------------------- */

static struct json_object *find_device(struct json_object *devices, struct json_object *like)
{
	char wanted[CLI_TEXT_MAX], name[CLI_TEXT_MAX];

	member_text(wanted, like, "name");
	for (size_t i = 0; devices && i < json_object_array_length(devices); i++) {
		struct json_object *d = json_object_array_get_idx(devices, i);

		if (strcmp(member_text(name, d, "name"), wanted) == 0)
			return d;
	}
	return NULL;
}

static void print_line(struct json_object *device, const char *state, const char *trouble)
{
	char name[CLI_TEXT_MAX], node[CLI_TEXT_MAX], date[40] = "";
	time_t now = time(NULL);
	struct tm tm;

	if (localtime_r(&now, &tm))
		strftime(date, sizeof(date), "%FT%T%z", &tm);
	member_text(node, device, "device");
	printf("%s %s %s %s%s%s\n", date, *node ? node : "-",
	       member_text(name, device, "name"), state, *trouble ? ": " : "", trouble);
}

static void print_changes(struct json_object *before, struct json_object *now)
{
	char old_state[CLI_TEXT_MAX], state[CLI_TEXT_MAX], trouble[CLI_TEXT_MAX];

	for (size_t i = 0; i < json_object_array_length(now); i++) {
		struct json_object *d = json_object_array_get_idx(now, i);
		struct json_object *old = find_device(before, d);

		member_text(state, d, "state");
		if (!old || strcmp(member_text(old_state, old, "state"), state) != 0)
			print_line(d, state, device_trouble(trouble, d, 0));
	}
	for (size_t i = 0; before && i < json_object_array_length(before); i++) {
		struct json_object *d = json_object_array_get_idx(before, i);

		if (!find_device(now, d))
			print_line(d, "detached", "");
	}
	fflush(stdout);
}

/* ------------------------------------------------------------------------------------ */

static int on_reply(struct json_object *params, void *userdata)
{
	struct watch *w = userdata;
	struct json_object *devices = member(params, "devices");

	if (!json_object_is_type(devices, json_type_array))
		return -EPROTO;
	if (!w->screen)
		print_changes(w->devices, devices);
	json_object_put(w->devices);
	w->devices = json_object_get(devices);
	w->received = now_usec();
	return w->screen ? draw(w) : 0;
}

int cli_watch(const struct cli *cli, struct json_object *params, bool detail)
{
	struct watch w = { .detail = detail, .screen = isatty(STDOUT_FILENO) };
	int r;

	catch_signals(w.screen);
	if (w.screen)
		fputs(SCREEN_BEGIN, stdout);
	r = manager_call(cli, &(struct manager_request){
		.method = "Status", .params = params, .more = true, .reply = on_reply,
		.tick = w.screen ? draw : NULL, .done = end_screen, .userdata = &w });
	end_screen(&w);
	json_object_put(w.devices);
	return r;
}
