/* map: ask a server for the block status of a whole export. */
#include <errno.h>
#include <inttypes.h>
#include <nbdd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/cli/map.h"
#include "daemon/cli/server.h"
#include "lib/util/cleanup.h"
#include "lib/util/clock.h"
#include "lib/util/escape.h"
#include "lib/util/units.h"

enum { OPTION_CONTEXT, OPTION_JSON, OPTION_SVG };

#define LENGTH32_MAX	(UINT64_C(1) << 32)	/* of a request without extended headers */
#define LENGTH_ALIGN	(UINT64_C(64) << 10)	/* the largest smallest block */
#define PROGRESS_USEC	(USEC_PER_SEC / 5)

struct mapping {
	struct server *server;
	struct map *map;
	const char *wanted;		/* names of contexts, NULL: all */
	unsigned left_out;		/* contexts that there is no room for */
	bool progress;			/* is shown */
	uint64_t shown_usec;
};

/* ---- progress ---------------------------------------------------------------------- */

static void clear_progress(struct mapping *p)
{
	if (p->shown_usec && p->progress)
		fputs("\r\033[K", stderr);
	p->shown_usec = 0;
}

static void show_progress(struct mapping *p, uint64_t done)
{
	char human[FORMAT_MAX], size[FORMAT_MAX];
	uint64_t now = now_usec();

	if (!p->progress || now < p->shown_usec + PROGRESS_USEC)
		return;
	p->shown_usec = now;
	fprintf(stderr, "\r\033[Kmapping: %.0f %%, %s of %s, %" PRIu64 " extents",
		(double)done * 100 / (double)p->map->size, format_size(human, done),
		format_size(size, p->map->size), p->map->extents);
	fflush(stderr);
}

/* ---- contexts ---------------------------------------------------------------------- */

/* Is NAME among WANTED, which has commas between? */
static bool is_wanted(const char *wanted, const char *name)
{
	size_t n = strlen(name);

	for (const char *w = wanted; w; w = strchr(w, ',') ? strchr(w, ',') + 1 : NULL)
		if (strcspn(w, ",") == n && strncmp(w, name, n) == 0)
			return true;
	return false;
}

static int on_context(void *userdata, const char *name)
{
	struct mapping *p = userdata;

	if (p->wanted && !is_wanted(p->wanted, name))
		return 0;
	if (!map_add_context(p->map, name))
		p->left_out++;
	return 0;
}

/* What is wanted by name is asked for even when the server does not list it. */
static int add_wanted(struct mapping *p)
{
	_cleanup_free_ char *names = p->wanted ? cli_must(strdup(p->wanted)) : NULL;
	char *rest = names;

	for (char *name; rest && (name = strsep(&rest, ",")); )
		if (*name && !map_add_context(p->map, name))
			return cli_error(p->server->cli, CLI_USAGE, "map: at most %d contexts "
					 "at a time", MAP_CONTEXTS_MAX);
	return CLI_OK;
}

static int ask_for_contexts(struct mapping *p)
{
	struct server *s = p->server;

	if (add_wanted(p) != CLI_OK)
		return CLI_USAGE;
	/* Many servers have it, and some do not list it. */
	if (!p->map->n_contexts)
		map_add_context(p->map, LIBNBD_CONTEXT_BASE_ALLOCATION);
	for (size_t i = 0; i < p->map->n_contexts; i++)
		if (nbd_add_meta_context(s->h, p->map->contexts[i].name) < 0)
			return server_error(s, CLI_FAILED, NULL);
	return CLI_OK;
}

static int begin(struct mapping *p)
{
	struct server *s = p->server;
	int r;

	if (nbd_aio_is_negotiating(s->h) <= 0)
		return server_error(s, CLI_FAILED, "the server is too old to tell what its "
				    "blocks are");
	r = server_wait(s, nbd_aio_opt_list_meta_context(s->h, (nbd_context_callback){
		.callback = on_context, .user_data = p }, server_answer(s)));
	if (r == CLI_OK)
		r = ask_for_contexts(p);
	if (r == CLI_OK)
		r = server_wait(s, nbd_aio_opt_go(s->h, server_answer(s)));
	return r == CLI_OK && s->error ? server_refused(s) : r;
}

/* Keep those contexts that the server has. */
static int keep_known(struct mapping *p)
{
	struct map *m = p->map;
	char name[256], text[320];

	for (size_t i = 0; i < m->n_contexts; i++) {
		if (nbd_can_meta_context(p->server->h, m->contexts[i].name) > 0)
			continue;
		if (!p->wanted)
			return server_error(p->server, CLI_FAILED, "the server does not tell "
					    "what its blocks are");
		snprintf(text, sizeof(text), "the server does not have the context %s (see "
			 "`nbdctl info`)", escape_text(name, sizeof(name), m->contexts[i].name,
						       strlen(m->contexts[i].name)));
		return server_error(p->server, CLI_FAILED, text);
	}
	if (p->left_out)
		cli_warning("the server has %u contexts more than the %d that are shown; "
			    "choose with --context", p->left_out, MAP_CONTEXTS_MAX);
	return CLI_OK;
}

/* ---- extents ----------------------------------------------------------------------- */

static int on_extents(void *userdata, const char *name, uint64_t offset, nbd_extent *entries,
		      size_t n, int *error)
{
	struct mapping *p = userdata;
	struct map_context *c = map_find_context(p->map, name);

	for (size_t i = 0; c && i < n; i++) {
		map_add_extent(p->map, c, offset, entries[i].length, entries[i].flags);
		if (__builtin_add_overflow(offset, entries[i].length, &offset))
			break;
	}
	return 0;
}

/* Where the context that is least known goes on. */
static uint64_t known_up_to(const struct map *m)
{
	uint64_t least = m->size;

	for (size_t i = 0; i < m->n_contexts; i++)
		least = MIN(least, map_end(&m->contexts[i]));
	return least;
}

static int ask(struct mapping *p, uint64_t offset)
{
	struct server *s = p->server;
	uint64_t count = p->map->size - offset;
	int64_t cookie;
	int r;

	if (nbd_get_extended_headers_negotiated(s->h) <= 0)
		count = MIN(count, LENGTH32_MAX - LENGTH_ALIGN);
	cookie = nbd_aio_block_status_64(s->h, count, offset, (nbd_extent64_callback){
		.callback = on_extents, .user_data = p }, server_answer(s), 0);
	if (cookie < 0)
		return server_error(s, CLI_FAILED, NULL);
	r = server_wait(s, 0);
	return r == CLI_OK && s->error ? server_refused(s) : r;
}

static int fetch(struct mapping *p)
{
	uint64_t at = known_up_to(p->map), before;
	int r = CLI_OK;

	while (r == CLI_OK && at < p->map->size) {
		show_progress(p, at);
		before = at;
		r = ask(p, at);
		at = known_up_to(p->map);
		if (r == CLI_OK && at == before)
			r = server_error(p->server, CLI_FAILED, "the server says nothing of "
					 "some blocks");
	}
	clear_progress(p);
	map_finish(p->map);
	return r;
}

/* ---- the verb ---------------------------------------------------------------------- */

static size_t picture_cells(const struct cli_arguments *a, unsigned width)
{
	if (a->options[OPTION_JSON])
		return 1;
	if (a->options[OPTION_SVG])
		return MAP_SVG_COLUMNS * MAP_SVG_ROWS;
	return (size_t)map_text_columns(width) * MAP_ROWS;
}

/* What goes wrong after the JSON has begun stands on stderr only, and the end says so. */
static int map_to_json(struct mapping *p, struct cli *cli)
{
	bool first = true;
	int r;

	p->map->userdata = &first;
	map_json_begin(p->map);
	cli->json = false;
	r = fetch(p);
	map_json_end(p->map, r == CLI_OK);
	return r;
}

static int map_server(struct cli *cli, const struct cli_arguments *a, struct mapping *p)
{
	unsigned width, lines;
	int64_t size;
	int r = begin(p);

	if (r == CLI_OK)
		r = keep_known(p);
	if (r != CLI_OK)
		return r;
	size = nbd_get_size(p->server->h);
	if (size < 0)
		return server_error(p->server, CLI_FAILED, NULL);
	terminal_size(stdout, &width, &lines);
	map_init(p->map, (uint64_t)size, picture_cells(a, width));
	if (a->options[OPTION_JSON])
		return map_to_json(p, cli);
	r = fetch(p);
	if (r == CLI_OK && a->options[OPTION_SVG])
		map_svg_print(p->map);
	else if (r == CLI_OK)
		map_text_print(p->map, width, terminal_colour(stdout));
	return r;
}

static int on_device(struct json_object *params, void *userdata)
{
	struct json_object **ret = userdata;

	*ret = json_object_get(json_object_array_get_idx(member(params, "devices"), 0));
	return 0;
}

/* What is given on the command line counts more than what the device has. */
static void add_keys(struct json_object *keys, struct json_object *of_device)
{
	if (!json_object_is_type(of_device, json_type_object))
		return;
	json_object_object_foreach(of_device, key, value)
		if (!member(keys, key) && json_object_is_type(value, json_type_string))
			json_object_object_add(keys, key, json_object_get(value));
}

/* The server's URI of a device, if WORD is not a URI itself, and its keys. */
static int find_uri(struct cli *cli, const char *word, struct json_object *keys, char **ret)
{
	struct json_object *params, *device = NULL, *uri;
	int r;

	if (strstr(word, "://")) {
		*ret = cli_must(strdup(word));
		return CLI_OK;
	}
	params = cli_must(json_object_new_object());
	json_object_object_add(params, "device", cli_must(json_object_new_string(word)));
	r = manager_call(cli, &(struct manager_request){
		.method = "Status", .params = params, .reply = on_device, .userdata = &device });
	uri = member(device, "uri");
	if (r == CLI_OK && !json_object_is_type(uri, json_type_string))
		r = cli_error(cli, CLI_FAILED, "nbdd's answer is not understood: is it of "
			      "another version?");
	else if (r == CLI_OK)
		*ret = cli_must(strdup(json_object_get_string(uri)));
	if (r == CLI_OK)
		add_keys(keys, member(device, "keys"));
	json_object_put(device);
	return r;
}

int verb_map(struct cli *cli, const struct cli_arguments *a)
{
	_cleanup_free_ char *uri = NULL;
	struct map map = {};
	struct server s = { .cli = cli, .keys = a->keys };
	struct mapping p = { .server = &s, .map = &map, .wanted = a->options[OPTION_CONTEXT],
			     .progress = isatty(STDERR_FILENO) };
	int r;

	if (a->options[OPTION_JSON] && a->options[OPTION_SVG])
		return cli_error(cli, CLI_USAGE, "map: --json and --svg exclude each other");
	r = find_uri(cli, a->words[0], a->keys, &uri);
	if (r != CLI_OK)
		return r;
	s.uri = map.uri = uri;
	r = server_connect(&s);
	if (r == CLI_OK)
		r = map_server(cli, a, &p);
	server_close(&s);
	map_deinit(&map);
	return r;
}
