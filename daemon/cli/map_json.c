/* A map for programs.  Extents are printed as they come: there may be millions. */
#include <inttypes.h>
#include <string.h>

#include "daemon/cli/map.h"
#include "lib/util/utf8.h"

/* TEXT as JSON: UTF-8 without control characters, whatever the server sent. */
static void print_string(const char *text)
{
	size_t len = strlen(text), n;
	uint32_t c;

	putchar('"');
	for (; len; text += n, len -= n) {
		n = utf8_next(text, len, &c);
		if (!n)
			c = 0xfffd;	/* REPLACEMENT CHARACTER */
		n = n ? n : 1;
		if (c == '"' || c == '\\')
			printf("\\%c", (char)c);
		else if (c != 0xfffd && utf8_is_printable(c))
			fwrite(text, 1, n, stdout);
		else if (c <= 0xffff)
			printf("\\u%04x", c);
		else
			printf("\\u%04x\\u%04x", 0xd800 + ((c - 0x10000) >> 10),
			       0xdc00 + ((c - 0x10000) & 0x3ff));
	}
	putchar('"');
}

static size_t kind_with(const struct map_context *c, uint64_t flags)
{
	size_t i = 0;

	while (i + 1 < c->n_kinds && c->kinds[i].flags != flags)
		i++;
	return i;
}

static void on_extent(const struct map_context *c, void *userdata)
{
	bool *first = userdata;

	printf("%s\n    { \"context\": ", *first ? "" : ",");
	print_string(c->name);
	printf(", \"offset\": %" PRIu64 ", \"length\": %" PRIu64 ", \"flags\": %" PRIu64
	       ", \"kind\": ", c->run.start, c->run.length, c->run.flags);
	print_string(map_look(c, kind_with(c, c->run.flags)).name);
	fputs(" }", stdout);
	*first = false;
}

void map_json_begin(struct map *m)
{
	m->told = on_extent;
	fputs("{\n  \"uri\": ", stdout);
	print_string(m->uri);
	printf(",\n  \"size\": %" PRIu64 ",\n  \"extents\": [", m->size);
}

static void print_kinds(const struct map_context *c)
{
	for (size_t i = 0; i < c->n_kinds; i++) {
		const struct map_kind *k = &c->kinds[i];

		printf("%s\n      { \"kind\": ", i ? "," : "");
		print_string(map_look(c, i).name);
		printf(", \"flags\": %" PRIu64 ", \"bytes\": %" PRIu64 ", \"extents\": %" PRIu64
		       " }", k->flags, k->bytes, k->extents);
	}
}

void map_json_end(const struct map *m, bool complete)
{
	fputs("\n  ],\n  \"contexts\": [", stdout);
	for (size_t i = 0; i < m->n_contexts; i++) {
		printf("%s\n    { \"name\": ", i ? "," : "");
		print_string(m->contexts[i].name);
		fputs(", \"kinds\": [", stdout);
		print_kinds(&m->contexts[i]);
		fputs(" ] }", stdout);
	}
	printf("\n  ],\n  \"complete\": %s\n}\n", complete ? "true" : "false");
}
