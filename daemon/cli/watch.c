/* status --watch: a screen that follows the devices, or lines when there is no terminal. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "daemon/cli/cli.h"
#include "daemon/cli/follow.h"
#include "daemon/cli/screen.h"
#include "daemon/cli/status.h"
#include "lib/util/cleanup.h"
#include "lib/util/clock.h"
#include "netlink/nbdk.h"

/* The alternate screen without a cursor, and back. */
#define SCREEN_BEGIN	"\033[?1049h\033[?25l"
#define SCREEN_END	"\033[?25h\033[?1049l"

#define TICK_USEC	(100 * USEC_PER_MSEC)	/* a key or a signal waits so long */
#define STOP		(-ECANCELED)		/* of a tick: the person wants no more */

struct watch {
	struct screen screen;
	uint64_t received, sampled;	/* monotonic */
	unsigned columns, lines;	/* as drawn last */
	bool detail, on_screen;
	bool keys;			/* stdin is a terminal, set to give single keys */
	struct termios before;
	sigset_t signals;
	int sig;			/* that has ended it, or 0 */
};

/* ---- the terminal ------------------------------------------------------------------ */

/* Signals are looked for at each tick, so that none finds the terminal half changed. */
static void begin_screen(struct watch *w)
{
	struct termios keys;

	follow_signals(&w->signals);
	w->keys = tcgetattr(STDIN_FILENO, &w->before) == 0;
	if (w->keys) {
		keys = w->before;
		keys.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
		keys.c_cc[VMIN] = 0;
		keys.c_cc[VTIME] = 0;
		keys.c_cc[VSUSP] = _POSIX_VDISABLE;
		w->keys = tcsetattr(STDIN_FILENO, TCSANOW, &keys) == 0;
	}
	fputs(SCREEN_BEGIN, stdout);
	fflush(stdout);
}

static void end_screen(void *userdata)
{
	struct watch *w = userdata;

	if (!w->on_screen)
		return;
	fputs(SCREEN_END, stdout);
	fflush(stdout);
	if (w->keys)
		tcsetattr(STDIN_FILENO, TCSANOW, &w->before);
	w->on_screen = false;
}

static bool told_to_end(struct watch *w)
{
	static const struct timespec now;
	struct pollfd p = { .fd = w->keys ? STDIN_FILENO : -1, .events = POLLIN };
	char key = '\0';

	w->sig = sigtimedwait(&w->signals, NULL, &now);
	if (w->sig > 0)
		return true;
	w->sig = 0;
	while (poll(&p, 1, 0) == 1 && read(STDIN_FILENO, &key, 1) == 1)
		if (key == 'q' || key == 'Q')
			return true;
	if (p.revents)			/* the terminal has gone, or is not read any more */
		w->keys &= !(p.revents & (POLLHUP | POLLERR | POLLNVAL));
	return false;
}

/* ---- a screen ---------------------------------------------------------------------- */

static void render(const struct watch *w, FILE *out)
{
	uint64_t age = usec_sub(now_usec(), w->received);
	bool colour = terminal_colour(stdout);

	if (!w->screen.n_rows)
		fputs("No devices are attached; q ends.\n", out);
	else if (w->detail)
		screen_draw_detail(out, &w->screen, w->columns, colour, age);
	else
		screen_draw(out, &w->screen, w->columns, w->lines - 1, colour, age);
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

static void draw(struct watch *w)
{
	_cleanup_free_ char *text = NULL;
	size_t size;
	FILE *memory;

	terminal_size(stdout, &w->columns, &w->lines);
	memory = cli_must(open_memstream(&text, &size));
	render(w, memory);
	if (fclose(memory) == 0)
		print_lines(text, w->lines);
}

/* The kernel counts, and is asked without the daemon. */
static void sample(struct watch *w, uint64_t now)
{
	size_t n = w->screen.n_rows;
	struct screen_counters *all = cli_must(calloc(n + 1, sizeof(*all)));

	for (size_t i = 0; i < n; i++) {
		int index = w->screen.rows[i]->index;
		struct nbdk_info info;

		if (index < 0 || nbdk_sysfs_read((unsigned)index, &info) < 0)
			continue;
		all[i] = (struct screen_counters){ true, info.read_bytes + info.write_bytes,
						   info.reads + info.writes,
						   info.read_usec + info.write_usec };
	}
	screen_sample(&w->screen, all, now - w->sampled);
	free(all);
	w->sampled = now;
}

static int on_tick(void *userdata)
{
	struct watch *w = userdata;
	unsigned columns, lines;
	uint64_t now = now_usec();

	if (told_to_end(w))
		return STOP;
	if (!w->screen.devices)
		return 0;
	terminal_size(stdout, &columns, &lines);
	if (now - w->sampled >= USEC_PER_SEC)
		sample(w, now);
	else if (columns == w->columns && lines == w->lines)
		return 0;
	draw(w);
	return 0;
}

/* ---- lines ------------------------------------------------------------------------- */

static void on_signal(int sig)
{
	_exit(sig == SIGINT ? CLI_OK : 128 + sig);
}

static void catch_signals(void)
{
	static const int signals[] = { SIGINT, SIGTERM, SIGHUP };
	struct sigaction action = { .sa_handler = on_signal };

	for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
		sigaction(signals[i], &action, NULL);
}

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
	char name[CLI_TEXT_MAX], node[CLI_TEXT_MAX], date[DATE_MAX];

	member_text(node, device, "device");
	printf("%s %s %s %s%s%s\n", date_text(date, clock_usec(CLOCK_REALTIME)), *node ? node : "-",
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
	if (!w->on_screen)
		print_changes(w->screen.devices, devices);
	screen_update(&w->screen, devices, clock_usec(CLOCK_REALTIME));
	w->received = now_usec();
	if (!w->on_screen)
		return 0;
	if (!w->sampled)
		sample(w, w->received);
	draw(w);
	return 0;
}

int cli_watch(const struct cli *cli, struct json_object *params, bool detail)
{
	struct watch w = { .detail = detail, .on_screen = terminal_screen(stdout) };
	int r;

	if (w.on_screen)
		begin_screen(&w);
	else
		catch_signals();
	r = manager_call(cli, &(struct manager_request){
		.method = "Status", .params = params, .more = true, .reply = on_reply,
		.tick = w.on_screen ? on_tick : NULL, .tick_usec = TICK_USEC,
		.done = end_screen, .userdata = &w });
	end_screen(&w);
	screen_free(&w.screen);
	return w.sig && w.sig != SIGINT ? 128 + w.sig : r;
}
