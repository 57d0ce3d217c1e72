#include <libnbd.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/cli/cli.h"
#include "daemon/cli/server.h"
#include "lib/util/units.h"

/* As `nbdctl status` names them (NBD protocol, transmission flags). */
static const struct flag {
	const char *name;
	int (*get)(struct nbd_handle *h);
} flags[] = {
	{ "read-only", nbd_is_read_only }, { "flush", nbd_can_flush },
	{ "fua", nbd_can_fua }, { "rotational", nbd_is_rotational },
	{ "trim", nbd_can_trim }, { "write-zeroes", nbd_can_zero }, { "df", nbd_can_df },
	{ "multi-conn", nbd_can_multi_conn }, { "cache", nbd_can_cache },
	{ "fast-zero", nbd_can_fast_zero },
};

static const struct {
	const char *name;
	int type;
} block_sizes[] = {
	{ "minimum", LIBNBD_SIZE_MINIMUM }, { "preferred", LIBNBD_SIZE_PREFERRED },
	{ "maximum", LIBNBD_SIZE_MAXIMUM },
};

static int on_context(void *userdata, const char *name)
{
	json_object_array_add(userdata, cli_must(json_object_new_string(name)));
	return 0;
}

/* A server that cannot list contexts has none to show. */
static int fetch_contexts(struct server *s, struct json_object *list)
{
	return server_wait(s, nbd_aio_opt_list_meta_context(s->h, (nbd_context_callback){
		.callback = on_context, .user_data = list }, server_answer(s)));
}

/* NBD_OPT_INFO tells without opening the export; servers that do not know it, or answer
 * with a size of 0 (nbd-server 3.24), are asked by NBD_OPT_GO. */
static int fetch_export(struct server *s)
{
	int r = server_wait(s, nbd_aio_opt_info(s->h, server_answer(s)));

	if (r != CLI_OK || (!s->error && nbd_get_size(s->h) > 0))
		return r;
	if (nbd_aio_is_negotiating(s->h) <= 0)
		return server_refused(s);
	r = server_wait(s, nbd_aio_opt_go(s->h, server_answer(s)));
	return r == CLI_OK && s->error ? server_refused(s) : r;
}

static int fetch(struct server *s, struct json_object *contexts)
{
	int r;

	if (nbd_aio_is_ready(s->h) > 0)
		return CLI_OK;
	r = fetch_contexts(s, contexts);
	return r == CLI_OK ? fetch_export(s) : r;
}

static void add_text(struct json_object *o, const char *key, const char *text)
{
	json_object_object_add(o, key, text ? cli_must(json_object_new_string(text)) : NULL);
}

/* As add_text; frees TEXT. */
static void add_owned(struct json_object *o, const char *key, char *text)
{
	add_text(o, key, text);
	free(text);
}

static struct json_object *flag_list(struct nbd_handle *h)
{
	struct json_object *list = cli_must(json_object_new_array());

	for (size_t i = 0; i < ARRAY_SIZE(flags); i++)
		if (flags[i].get(h) > 0)
			json_object_array_add(list, json_object_new_string(flags[i].name));
	return list;
}

static struct json_object *block_size_object(struct nbd_handle *h)
{
	struct json_object *o = cli_must(json_object_new_object());

	for (size_t i = 0; i < ARRAY_SIZE(block_sizes); i++) {
		int64_t n = nbd_get_block_size(h, block_sizes[i].type);

		json_object_object_add(o, block_sizes[i].name,
				       n > 0 ? json_object_new_int64(n) : NULL);
	}
	return o;
}

static struct json_object *describe(const struct server *s, struct json_object *contexts)
{
	struct json_object *o = cli_must(json_object_new_object());
	char *name = nbd_get_canonical_export_name(s->h);

	add_text(o, "uri", s->uri);
	add_owned(o, "export", name ? name : nbd_get_export_name(s->h));
	add_owned(o, "description", nbd_get_export_description(s->h));
	json_object_object_add(o, "size", json_object_new_int64(nbd_get_size(s->h)));
	json_object_object_add(o, "read_only",
			       json_object_new_boolean(nbd_is_read_only(s->h) > 0));
	json_object_object_add(o, "flags", flag_list(s->h));
	json_object_object_add(o, "block_size", block_size_object(s->h));
	json_object_object_add(o, "contexts", json_object_get(contexts));
	add_text(o, "protocol", nbd_get_protocol(s->h));
	json_object_object_add(o, "tls", json_object_new_boolean(
				       nbd_get_tls_negotiated(s->h) > 0));
	return o;
}

static void line(const char *label, const char *text)
{
	printf("%11s: %s\n", label, text);
}

static void print_block_sizes(struct json_object *o)
{
	char text[256] = "", human[FORMAT_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(block_sizes); i++) {
		uint64_t n = member_u64(o, block_sizes[i].name);
		size_t used = strlen(text);

		if (n)
			snprintf(text + used, sizeof(text) - used, "%s%s %s",
				 used ? ", " : "", block_sizes[i].name,
				 format_size(human, n));
	}
	line("Block size", *text ? text : "not told by the server");
}

static void print_text(struct json_object *o)
{
	char text[CLI_TEXT_MAX], human[FORMAT_MAX];
	uint64_t size = member_u64(o, "size");

	line("Export", *member_text(text, o, "export") ? text : "\"\" (the default export)");
	if (*member_text(text, o, "description"))
		line("Description", text);
	snprintf(text, sizeof(text), "%s (%llu bytes)", format_size(human, size),
		 (unsigned long long)size);
	line("Size", text);
	line("Access", member_bool(o, "read_only") ? "read-only" : "read and write");
	line("Flags", *member_list(text, o, "flags", " ") ? text : "none");
	print_block_sizes(member(o, "block_size"));
	line("Contexts", *member_list(text, o, "contexts", " ") ? text : "none");
	line("Protocol", member_text(text, o, "protocol"));
	line("TLS", member_bool(o, "tls") ? "on" : "off");
}

int verb_info(struct cli *cli, const struct cli_arguments *a)
{
	struct server s = { .cli = cli, .uri = a->words[0], .keys = a->keys };
	struct json_object *contexts = cli_must(json_object_new_array()), *o = NULL;
	int r = server_connect(&s);

	if (r == CLI_OK)
		r = fetch(&s, contexts);
	if (r == CLI_OK)
		o = describe(&s, contexts);
	server_close(&s);
	json_object_put(contexts);
	if (o && cli->json)
		cli_print_json(json_object_get(o));
	else if (o)
		print_text(o);
	json_object_put(o);
	return r;
}
