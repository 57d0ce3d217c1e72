/* nbd-client -l: the exports of a server. */
#include <stdlib.h>
#include <string.h>

#include "conf/conf.h"
#include "daemon/cli/front.h"
#include "lib/util/cleanup.h"

/* What a URI may hold as it stands: RFC 3986's unreserved characters, and slashes. */
static bool is_plain(char c)
{
	return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') ||
	       strchr("-._~/", c);
}

static void print_encoded(FILE *out, const char *text)
{
	for (; *text; text++)
		fprintf(out, is_plain(*text) ? "%c" : "%%%02X", (unsigned char)*text);
}

static const char *key(const struct front *f, const char *name)
{
	struct json_object *o = member(f->keys, name);

	return o ? json_object_get_string(o) : NULL;
}

static void print_parameters(const struct front *f, FILE *out, char before)
{
	static const struct {
		const char *key, *parameter;
	} parameters[] = {
		{ "tls-hostname", "tls-hostname" }, { "tls-priority", "tls-priority" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(parameters); i++) {
		const char *value = key(f, parameters[i].key);

		if (!value)
			continue;
		fprintf(out, "%c%s=", before, parameters[i].parameter);
		print_encoded(out, value);
		before = '&';
	}
}

static char *build_uri(const struct front *f)
{
	bool bare_v6 = strchr(f->host, ':') && *f->host != '[';
	char *uri = NULL;
	size_t len;
	FILE *out = cli_must(open_memstream(&uri, &len));

	fputs(f->tls ? "nbds" : "nbd", out);
	if (f->unix_socket) {
		fputs("+unix:///?socket=", out);
		print_encoded(out, f->host);
	} else {
		fprintf(out, bare_v6 ? "://[%s]" : "://%s", f->host);
		if (f->port)
			fprintf(out, ":%s", f->port);
		fputc('/', out);
	}
	print_parameters(f, out, f->unix_socket ? '&' : '?');
	fclose(out);
	return cli_must(uri);
}

int front_list(struct front *f)
{
	struct json_object *list;
	_cleanup_free_ char *uri = NULL;
	int r;

	if (!f->host)
		return front_error(f, "-l: no server is named");
	r = front_take_tls(f);
	if (r)
		return r;
	list = cli_must(json_object_new_array());
	uri = build_uri(f);
	r = cli_fetch_list(&f->cli, uri, f->keys, list);
	puts("Negotiation: ..");
	if (r == CLI_OK)
		cli_print_list(list);
	else if (r == CLI_LIST_FORBIDDEN)
		fputs("E: listing not allowed by server.\n", stderr);
	json_object_put(list);
	return r == CLI_OK ? 0 : 1;
}
