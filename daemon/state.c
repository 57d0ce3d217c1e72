#include "daemon/state.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/members.h"
#include "daemon/state_text.h"
#include "lib/util/cleanup.h"
#include "lib/util/escape.h"

#define DEPTH_MAX	8

static inline void cleanup_json_p(struct json_object **o)
{
	json_object_put(*o);
}
#define _cleanup_json_ _cleanup_(cleanup_json_p)

static const char *const phases[N_PHASES] = { "attaching", "attached", "detaching" };
static const char *const link_phases[N_LINK_PHASES] = { "dead", "handed", "alive" };

static const struct member device_members[] = {
	{ "name", MEMBER_STRING(state, name) },
	{ "identifier", MEMBER_STRING(state, identifier) },
	{ "boot", MEMBER_STRING(state, boot_id) },
	{ "phase", MEMBER_WORD, MEMBER(state, phase), .max = N_PHASES, .words = phases },
	{ "index", MEMBER_U32, MEMBER(state, index), .max = NBDK_INDEX_MAX },
	{ "index-fixed", MEMBER_BOOL, MEMBER(state, index_fixed) },
	{ "automatic", MEMBER_BOOL, MEMBER(state, automatic) },
	{ "forced", MEMBER_BOOL, MEMBER(state, forced) },
	{ "size", MEMBER_U64, MEMBER(state, size), 1, INT64_MAX },
	{ "grow-to", MEMBER_U64, MEMBER(state, grow_to), .max = INT64_MAX },
	{ "block-size", MEMBER_U32, MEMBER(state, block_size), 512, 4096 },
	{ "requeue-usec", MEMBER_U64, MEMBER(state, requeue_usec), .max = INT64_MAX },
	{ "timeout-due", MEMBER_BOOL, MEMBER(state, timeout_due), .optional = true },
	{ "warning", MEMBER_STRING(state, warning) },
	{ "kernel-tls-given-up", MEMBER_STRING(state, distrust), .optional = true },
};

static const struct member export_members[] = {
	{ "size", MEMBER_U64, MEMBER(export_info, size), 1, INT64_MAX },
	{ "flags", MEMBER_U16, MEMBER(export_info, flags), .max = UINT16_MAX },
	{ "block-minimum", MEMBER_U32, MEMBER(export_info, block_minimum), .max = UINT32_MAX },
	{ "payload-maximum", MEMBER_U32, MEMBER(export_info, payload_maximum),
	  .max = UINT32_MAX },
};

static const struct member outage_members[] = {
	{ "count", MEMBER_U64, MEMBER(outages, count), .max = INT64_MAX },
	{ "total-usec", MEMBER_U64, MEMBER(outages, total_usec), .max = INT64_MAX },
	{ "began-usec", MEMBER_U64, MEMBER(outages, began_usec), .max = INT64_MAX },
	{ "last-start-usec", MEMBER_U64, MEMBER(outages, last_start_real_usec),
	  .max = INT64_MAX },
	{ "last-usec", MEMBER_U64, MEMBER(outages, last_usec), .max = INT64_MAX },
	{ "reason", MEMBER_STRING(outages, reason) },
};

static const struct member link_members[] = {
	{ "phase", MEMBER_WORD, MEMBER(state_link, phase), .max = N_LINK_PHASES,
	  .words = link_phases },
	{ "inode", MEMBER_U64, MEMBER(state_link, sock.inode), .max = INT64_MAX },
	{ "peer", MEMBER_STRING(state_link, peer) },
	{ "since-usec", MEMBER_U64, MEMBER(state_link, since_real_usec), .max = INT64_MAX },
	{ "relay-pid", MEMBER_U32, MEMBER(state_link, relay_pid), .max = STATE_PID_MAX,
	  .optional = true },
};

static const struct member tls_members[] = {
	{ "version", MEMBER_U16, MEMBER(link_tls, version), .max = UINT16_MAX },
	{ "in-kernel", MEMBER_BOOL, MEMBER(link_tls, in_kernel) },
	{ "cipher", MEMBER_STRING(link_tls, cipher) },
	{ "why-not", MEMBER_STRING(link_tls, why_not) },
	{ "names", MEMBER_STRING(link_tls, peer) },
	{ "expires", MEMBER_U64, MEMBER(link_tls, peer_expires), .max = INT64_MAX },
	{ "own-expires", MEMBER_U64, MEMBER(link_tls, own_expires), .max = INT64_MAX },
};

/* What a URI says of TLS: texts that need not be there. */
static const struct {
	const char *name;
	size_t offset;
} uri_tls[] = {
	{ "certificates", offsetof(struct target_tls, certificates) },
	{ "psk-file", offsetof(struct target_tls, psk_file) },
	{ "username", offsetof(struct target_tls, username) },
	{ "hostname", offsetof(struct target_tls, hostname) },
	{ "priority", offsetof(struct target_tls, priority) },
};

static const struct member server_members[] = {
	{ "host", MEMBER_STRING(server, host) },
	{ "label", MEMBER_STRING(server, label) },
};

#define WRITE(o, table, from)	members_write(o, table, ARRAY_SIZE(table), from)
#define READ(o, table, into, e)	members_read(o, table, ARRAY_SIZE(table), into, e, \
					     STATE_ERROR_MAX)

/* ---- writing ----------------------------------------------------------------------- */

static int write_keys(struct json_object *o, const struct device_keys *k)
{
	int r = 0;

	for (size_t i = 0; i < n_conf_keys && r == 0; i++) {
		_cleanup_free_ char *text = NULL;

		if (!device_keys_given(k, conf_keys[i].name))
			continue;
		r = device_keys_get(k, conf_keys[i].name, &text);
		if (r == 0 && text)
			r = member_add(o, conf_keys[i].name, json_object_new_string(text));
	}
	return r;
}

static struct json_object *new_address(const void *address, size_t len)
{
	char hex[2 * sizeof(struct sockaddr_storage) + 1];

	state_put_hex(hex, address, len);
	return json_object_new_string(hex);
}

static int write_server(struct json_object *list, const struct server *s)
{
	struct json_object *o = json_object_new_object(), *addresses;
	int r = json_object_array_add(list, o) == 0 && o ? WRITE(o, server_members, s) : -ENOMEM;

	addresses = json_object_new_array();
	if (r == 0)
		r = member_add(o, "addresses", addresses);
	else
		json_object_put(addresses);
	for (size_t i = 0; i < s->n_addresses && r == 0; i++)
		if (json_object_array_add(addresses, new_address(&s->addresses[i].addr,
								 s->addresses[i].len)) < 0)
			r = -ENOMEM;
	return r;
}

static int write_uri_tls(struct json_object *o, const struct target_tls *t)
{
	int r = member_add(o, "no-verify", json_object_new_boolean(t->no_verify));

	for (size_t i = 0; i < ARRAY_SIZE(uri_tls) && r == 0; i++) {
		const char *text = *(char *const *)((const char *)t + uri_tls[i].offset);

		if (text)
			r = member_add(o, uri_tls[i].name, json_object_new_string(text));
	}
	return r;
}

static int write_target(struct json_object *o, const struct target *t)
{
	struct json_object *servers = json_object_new_array();
	struct json_object *tls = json_object_new_object();
	int r = (member_add(o, "servers", servers) | member_add(o, "uri-tls", tls)) ? -ENOMEM : 0;

	if (r == 0)
		r = write_uri_tls(tls, &t->uri_tls);
	if (r == 0)
		r = member_add(o, "export", json_object_new_string(t->export_name));
	if (r == 0)
		r = member_add(o, "tls", json_object_new_boolean(t->tls));
	if (r == 0)
		r = member_add(o, "current", json_object_new_int64((int64_t)t->current));
	for (size_t i = 0; i < t->n_servers && r == 0; i++)
		r = write_server(servers, &t->servers[i]);
	return r;
}

static int write_link(struct json_object *list, const struct state_link *l)
{
	struct json_object *o = json_object_new_object(), *tls = json_object_new_object();
	int r = json_object_array_add(list, o) == 0 && o ? WRITE(o, link_members, l) : -ENOMEM;

	if (r == 0)
		r = member_add(o, "local", new_address(&l->sock.local,
						       state_address_len(&l->sock.local)));
	if (r == 0)
		r = member_add(o, "remote", new_address(&l->sock.peer,
							state_address_len(&l->sock.peer)));
	if (r == 0)
		r = member_add(o, "tls", tls);
	else
		json_object_put(tls);
	return r == 0 ? WRITE(tls, tls_members, &l->tls) : r;
}

static int write_all(struct json_object *o, const struct state *s)
{
	struct json_object *export = json_object_new_object();
	struct json_object *outages = json_object_new_object();
	struct json_object *keys = json_object_new_object();
	struct json_object *target = json_object_new_object();
	struct json_object *links = json_object_new_array();
	/* All are put in first, so that they go with the whole. */
	int r = (member_add(o, "export", export) | member_add(o, "outages", outages) |
		 member_add(o, "keys", keys) | member_add(o, "target", target) |
		 member_add(o, "links", links)) ? -ENOMEM : 0;

	if (r == 0)
		r = WRITE(o, device_members, s);
	if (r == 0)
		r = WRITE(export, export_members, &s->info);
	if (r == 0)
		r = WRITE(outages, outage_members, &s->outages);
	if (r == 0)
		r = write_keys(keys, &s->keys);
	if (r == 0)
		r = write_target(target, &s->target);
	for (size_t i = 0; i < s->n_links && r == 0; i++)
		r = write_link(links, &s->links[i]);
	return r;
}

int state_format(const struct state *s, char **ret, size_t *ret_len)
{
	_cleanup_json_ struct json_object *o = json_object_new_object();
	const char *text;
	size_t len;
	int r = o ? write_all(o, s) : -ENOMEM;

	if (r < 0)
		return r;
	text = json_object_to_json_string_length(o, JSON_C_TO_STRING_PLAIN |
						 JSON_C_TO_STRING_NOSLASHESCAPE, &len);
	return text ? state_seal(text, len, ret, ret_len) : -ENOMEM;
}

/* ---- reading ----------------------------------------------------------------------- */

static _printf_(2, 3) int fail(char error[static STATE_ERROR_MAX], const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(error, STATE_ERROR_MAX, format, ap);
	va_end(ap);
	return -EINVAL;
}

static int get(struct json_object *o, const char *name, enum json_type type,
	       struct json_object **ret, char error[static STATE_ERROR_MAX])
{
	return member_get(o, name, type, ret, error, STATE_ERROR_MAX);
}

/* A list of 1 to MAX items. */
static int get_list(struct json_object *o, const char *name, size_t max,
		    struct json_object **ret, size_t *ret_n,
		    char error[static STATE_ERROR_MAX])
{
	int r = get(o, name, json_type_array, ret, error);

	if (r < 0)
		return r;
	*ret_n = json_object_array_length(*ret);
	if (*ret_n == 0 || *ret_n > max)
		return fail(error, "'%s' has %zu items, expected 1 to %zu", name, *ret_n, max);
	return 0;
}

static int item(struct json_object *list, size_t i, enum json_type type,
		struct json_object **ret, char error[static STATE_ERROR_MAX])
{
	*ret = json_object_array_get_idx(list, i);
	if (!json_object_is_type(*ret, type))
		return fail(error, "item %zu of a list: expected %s", i,
			    json_type_to_name(type));
	return 0;
}

static int read_keys(struct json_object *o, struct state *s, char error[static STATE_ERROR_MAX])
{
	json_object_object_foreach(o, key, value) {
		int r;

		if (!conf_key_find(key, NULL)) {
			escape_text(s->unknown, sizeof(s->unknown), key, strlen(key));
			s->n_unknown++;
			continue;
		}
		if (!json_object_is_type(value, json_type_string))
			return fail(error, "'keys': expected texts");
		r = device_keys_set(&s->keys, key, json_object_get_string(value), error);
		if (r < 0)
			return r == -ENOMEM ? r : -EINVAL;
	}
	return 0;
}
_Static_assert(STATE_ERROR_MAX >= CONF_ERROR_MAX, "holds the messages of conf/");

static int read_address(struct json_object *value, struct sockaddr_storage *ret,
			socklen_t *ret_len, char error[static STATE_ERROR_MAX])
{
	if (!json_object_is_type(value, json_type_string) ||
	    state_get_address(json_object_get_string(value), ret, ret_len) < 0)
		return fail(error, "an address is not one of IPv4, IPv6, a Unix socket or a "
			    "vsock");
	return 0;
}

static int read_server(struct json_object *o, struct server *s,
		       char error[static STATE_ERROR_MAX])
{
	struct json_object *list, *value;
	size_t n;
	int r = READ(o, server_members, s, error);

	if (r == 0)
		r = get_list(o, "addresses", TARGET_ADDRESSES_MAX, &list, &n, error);
	if (r < 0)
		return r;
	s->addresses = calloc(n, sizeof(*s->addresses));
	if (!s->addresses)
		return -ENOMEM;
	for (size_t i = 0; i < n && r == 0; i++) {
		struct nbdd_address *a = &s->addresses[i];

		r = item(list, i, json_type_string, &value, error);
		if (r == 0)
			r = read_address(value, &a->addr, &a->len, error);
		s->n_addresses += r == 0;
	}
	return r;
}

static int read_uri_tls(struct json_object *o, struct target_tls *t,
			char error[static STATE_ERROR_MAX])
{
	struct json_object *value;
	int r = get(o, "no-verify", json_type_boolean, &value, error);

	if (r < 0)
		return r;
	t->no_verify = json_object_get_boolean(value);
	for (size_t i = 0; i < ARRAY_SIZE(uri_tls); i++) {
		char **to = (char **)((char *)t + uri_tls[i].offset);

		if (!json_object_object_get_ex(o, uri_tls[i].name, &value))
			continue;
		if (!json_object_is_type(value, json_type_string) ||
		    json_object_get_string_len(value) > CONF_VALUE_MAX)
			return fail(error, "'%s' is not a text, or is too long", uri_tls[i].name);
		*to = strdup(json_object_get_string(value));
		if (!*to)
			return -ENOMEM;
	}
	return 0;
}

static int read_target(struct json_object *o, struct target *t,
		       char error[static STATE_ERROR_MAX])
{
	struct json_object *list, *name, *tls, *uri, *current, *server;
	size_t n;
	int r = get_list(o, "servers", ARRAY_SIZE(t->servers), &list, &n, error);

	if (r < 0 || (r = get(o, "export", json_type_string, &name, error)) < 0 ||
	    (r = get(o, "tls", json_type_boolean, &tls, error)) < 0 ||
	    (r = get(o, "current", json_type_int, &current, error)) < 0 ||
	    (r = get(o, "uri-tls", json_type_object, &uri, error)) < 0 ||
	    (r = read_uri_tls(uri, &t->uri_tls, error)) < 0)
		return r;
	if (json_object_get_string_len(name) > TARGET_EXPORT_MAX)
		return fail(error, "'export' is longer than %d bytes", TARGET_EXPORT_MAX);
	if (json_object_get_int64(current) < 0 || json_object_get_int64(current) >= (int64_t)n)
		return fail(error, "'current' is none of the %zu servers", n);
	t->export_name = strdup(json_object_get_string(name));
	if (!t->export_name)
		return -ENOMEM;
	t->tls = json_object_get_boolean(tls);
	t->current = (size_t)json_object_get_int64(current);
	for (size_t i = 0; i < n && r == 0; i++) {
		r = item(list, i, json_type_object, &server, error);
		t->n_servers += r == 0;
		if (r == 0)
			r = read_server(server, &t->servers[i], error);
	}
	return r;
}

static int read_link(struct json_object *o, struct state_link *l,
		     char error[static STATE_ERROR_MAX])
{
	struct json_object *local, *remote, *tls;
	socklen_t len;
	int r = READ(o, link_members, l, error);

	if (r == 0)
		r = get(o, "tls", json_type_object, &tls, error);
	if (r == 0)
		r = READ(tls, tls_members, &l->tls, error);
	if (r == 0)
		r = get(o, "local", json_type_string, &local, error);
	if (r == 0)
		r = get(o, "remote", json_type_string, &remote, error);
	if (r < 0 || l->sock.inode == 0)
		return r;
	r = read_address(local, &l->sock.local, &len, error);
	return r < 0 ? r : read_address(remote, &l->sock.peer, &len, error);
}

static int read_links(struct json_object *o, struct state *s,
		      char error[static STATE_ERROR_MAX])
{
	struct json_object *list, *link;
	size_t n;
	int r = get_list(o, "links", CONF_CONNECTIONS_MAX, &list, &n, error);

	for (size_t i = 0; r == 0 && i < n; i++) {
		r = item(list, i, json_type_object, &link, error);
		if (r == 0)
			r = read_link(link, &s->links[i], error);
		s->n_links = (uint32_t)i + 1;
	}
	return r;
}

/* What each member alone cannot tell. */
static int check(const struct state *s, char error[static STATE_ERROR_MAX])
{
	if (conf_check_name(s->name) < 0)
		return fail(error, "'name' is not the name of a device");
	if (!s->identifier[0] || !s->boot_id[0])
		return fail(error, "'identifier' or 'boot' is empty");
	if ((s->block_size & (s->block_size - 1)) || s->size % s->block_size ||
	    s->grow_to % s->block_size)
		return fail(error, "'size' is not a multiple of 'block-size'");
	return 0;
}

static int read_all(struct json_object *o, struct state *s,
		    char error[static STATE_ERROR_MAX])
{
	struct json_object *export, *outages, *keys, *target;
	int r;

	if ((r = get(o, "export", json_type_object, &export, error)) < 0 ||
	    (r = get(o, "outages", json_type_object, &outages, error)) < 0 ||
	    (r = get(o, "keys", json_type_object, &keys, error)) < 0 ||
	    (r = get(o, "target", json_type_object, &target, error)) < 0 ||
	    (r = READ(o, device_members, s, error)) < 0 ||
	    (r = READ(export, export_members, &s->info, error)) < 0 ||
	    (r = READ(outages, outage_members, &s->outages, error)) < 0 ||
	    (r = read_keys(keys, s, error)) < 0 ||
	    (r = read_target(target, &s->target, error)) < 0 ||
	    (r = read_links(o, s, error)) < 0)
		return r;
	return check(s, error);
}

int state_parse_object(const char *text, size_t len, struct state *ret,
		       char error[static STATE_ERROR_MAX])
{
	struct json_tokener *tokener = json_tokener_new_ex(DEPTH_MAX);
	_cleanup_json_ struct json_object *o = NULL;
	bool whole;
	int r;

	device_keys_init(&ret->keys);
	if (!tokener)
		return -ENOMEM;
	o = json_tokener_parse_ex(tokener, text, (int)len);
	whole = json_tokener_get_error(tokener) == json_tokener_success &&
		json_tokener_get_parse_end(tokener) == len;
	json_tokener_free(tokener);
	if (!whole || !json_object_is_type(o, json_type_object))
		return fail(error, "it is not one JSON object");
	r = read_all(o, ret, error);
	if (r == -ENOMEM)
		fail(error, "out of memory");
	return r;
}

int state_parse(const char *text, size_t len, struct state *ret,
		char error[static STATE_ERROR_MAX])
{
	const char *object;
	size_t object_len;
	int r = state_unseal(text, len, &object, &object_len, error);

	if (r < 0) {
		device_keys_init(&ret->keys);
		return r;
	}
	return state_parse_object(object, object_len, ret, error);
}

void state_deinit(struct state *s)
{
	target_deinit(&s->target);
	device_keys_deinit(&s->keys);
}

int state_boot_id(char ret[static STATE_BOOT_ID_MAX])
{
	_cleanup_close_ int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, ret, STATE_BOOT_ID_MAX - 1);

	if (n < 0)
		return -errno;
	ret[n] = '\0';
	ret[strcspn(ret, "\n")] = '\0';
	return n ? 0 : -EIO;
}
