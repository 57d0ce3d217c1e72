/* Who holds a device.  nbdd says that one is in use, and may not look into other processes to
 * see by whom; whoever may detach it is root, and may. */
#include <stdio.h>
#include <string.h>

#include "conf/conf.h"
#include "daemon/cli/cli.h"
#include "daemon/cli/holders.h"
#include "netlink/nbdk.h"

#define HOLDERS_MAX 32

static struct json_object *holder_json(const struct nbdk_holder *h)
{
	static const char *const kinds[] = {
		[NBDK_HOLDER_MOUNT] = "mount", [NBDK_HOLDER_SWAP] = "swap",
		[NBDK_HOLDER_DEVICE] = "device", [NBDK_HOLDER_PROCESS] = "process",
	};
	struct json_object *o = cli_must(json_object_new_object());

	json_object_object_add(o, "kind", json_object_new_string(kinds[h->kind]));
	json_object_object_add(o, "device", json_object_new_string(h->device));
	json_object_object_add(o, "text", json_object_new_string(h->text));
	json_object_object_add(o, "pid", json_object_new_int(h->pid));
	return o;
}

void holders_find(struct json_object *params)
{
	struct nbdk_holder found[HOLDERS_MAX];
	struct json_object *list;
	char node[CLI_TEXT_MAX];
	unsigned index;
	size_t n = 0;

	/* An nbdd of before names them itself. */
	if (member(params, "holders") ||
	    conf_parse_device(member_text(node, params, "device"), &index) < 0)
		return;
	if (nbdk_holders(index, found, HOLDERS_MAX, &n) < 0)
		n = 0;
	list = cli_must(json_object_new_array());
	for (size_t i = 0; i < n; i++)
		json_object_array_add(list, holder_json(&found[i]));
	json_object_object_add(params, "holders", list);
}

size_t holders_count(struct json_object *params)
{
	struct json_object *list = member(params, "holders");

	return json_object_is_type(list, json_type_array) ? json_object_array_length(list) : 0;
}

bool holders_only_processes(struct json_object *params)
{
	size_t n = holders_count(params);
	char kind[CLI_TEXT_MAX];

	for (size_t i = 0; i < n; i++)
		if (strcmp(member_text(kind, json_object_array_get_idx(
				member(params, "holders"), i), "kind"), "process") != 0)
			return false;
	return n > 0;
}

/* ---- for people ---------------------------------------------------------------------- */

static const struct holder {
	const char *kind, *what, *remedy;
} holders[] = {
	{ "mount", "mounted on", "umount" },
	{ "swap", "used as swap space", "swapoff" },
	{ "device", "part of the device", NULL },
	{ "process", "opened by", NULL },
};

static const struct holder *find_holder(const char *kind)
{
	for (size_t i = 0; i < ARRAY_SIZE(holders); i++)
		if (strcmp(holders[i].kind, kind) == 0)
			return &holders[i];
	return NULL;
}

static void print_holder(struct json_object *o)
{
	char kind[CLI_TEXT_MAX], device[CLI_TEXT_MAX], text[CLI_TEXT_MAX];
	const struct holder *h = find_holder(member_text(kind, o, "kind"));
	uint64_t pid = member_u64(o, "pid");

	member_text(device, o, "device");
	member_text(text, o, "text");
	if (strncmp(text, "/dev/", 5) == 0)
		text[0] = '\0';		/* the device itself, once more */
	fprintf(stderr, "  %s is %s%s%s", device, h ? h->what : "held by",
		*text ? " " : "", text);
	if (pid)
		fprintf(stderr, " (pid %llu)", (unsigned long long)pid);
	if (h && h->remedy)
		fprintf(stderr, ": %s %s%s", h->remedy, *text == '/' ? text : "/dev/",
			*text == '/' ? "" : device);
	fputc('\n', stderr);
}

size_t holders_print(struct json_object *params)
{
	size_t n = holders_count(params);

	for (size_t i = 0; i < n; i++)
		print_holder(json_object_array_get_idx(member(params, "holders"), i));
	return n;
}
