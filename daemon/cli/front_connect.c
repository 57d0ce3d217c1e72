/* nbd-client HOST [PORT] [DEVICE]: ask the daemon for the device. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "conf/conf.h"
#include "daemon/cli/front.h"
#include "daemon/cli/start.h"
#include "lib/util/cleanup.h"

/* What the daemon answered. */
struct connected {
	char device[CLI_TEXT_MAX];
	uint64_t size;			/* bytes */
};

static bool has_key(const struct front *f, const char *name)
{
	return json_object_object_get_ex(f->keys, name, NULL);
}

static void add_text(struct json_object *o, const char *key, const char *value)
{
	json_object_object_add(o, key, cli_must(json_object_new_string(value)));
}

/* ---- a device of nbdtab ------------------------------------------------------------ */

/* `nbd0` alone.  nbd-client looks up every host whose name begins with `nbd`; only what is
 * the name of a device can be meant. */
static bool means_nbdtab(const struct front *f)
{
	unsigned index;

	return !f->port && !f->device && !f->unix_socket &&
	       conf_parse_device(f->host, &index) == 0;
}

/* Keys of the file under those of the command line.  0 or a status. */
static int merge_keys(struct front *f, const struct device_keys *k)
{
	for (size_t i = 0; i < n_conf_keys; i++) {
		const char *name = conf_keys[i].name;
		_cleanup_free_ char *value = NULL;

		if (has_key(f, name) || !device_keys_given(k, name))
			continue;
		if (device_keys_get(k, name, &value) == -ENOMEM)
			cli_must(NULL);
		if (value)
			front_set_key(f, name, value);
	}
	return 0;
}

static int report_not_found(const struct front *f, const struct conf *c)
{
	conf_print_problems(c, stderr);
	return front_error(f, "%s is not in %s/nbdtab", f->host, NBDD_SYSCONFDIR);
}

/* Without options of the command line the daemon takes all from its files. */
static int take_nbdtab(struct front *f, struct json_object *params)
{
	const struct conf_device *d;
	struct conf *c;
	int r;

	add_text(params, "device", f->host);
	if (!json_object_object_length(f->keys))
		return 0;
	r = conf_read(NBDD_SYSCONFDIR "/nbdd.conf", NBDD_SYSCONFDIR "/nbdtab", &c);
	if (r < 0)
		return front_error(f, "cannot read %s/nbdtab: %s", NBDD_SYSCONFDIR,
				   strerror(-r));
	d = conf_find(c, f->host);
	r = d ? merge_keys(f, &d->keys) : report_not_found(f, c);
	if (d)
		add_text(params, "name", d->name);
	conf_free(c);
	return r;
}

/* ---- a device of the command line -------------------------------------------------- */

/* The path of a socket may be relative, the daemon's is another directory. */
static char *absolute_path(const char *path)
{
	char here[PATH_MAX], *full = NULL;

	if (*path == '/')
		return cli_must(strdup(path));
	if (!getcwd(here, sizeof(here)) || asprintf(&full, "%s/%s", here, path) < 0)
		full = NULL;
	return cli_must(full);
}

static int take_server(struct front *f)
{
	_cleanup_free_ char *path = f->unix_socket ? absolute_path(f->host) : NULL;
	struct conf_address a;

	if (conf_parse_address(path ? path : f->host, &a) < 0 || a.port ||
	    strchr(f->host, ','))
		return front_error(f, "'%s' is not %s", f->host, path ?
				   "the path of a socket" : "a host or an address");
	front_set_key(f, "addresses", path ? path : f->host);
	if (f->port)
		front_set_key(f, "port", f->port);
	if (!has_key(f, "export"))
		front_set_key(f, "export", "");
	return 0;
}

/* Who did not ask for a device that outlives its connection gets errors when that dies, as
 * from nbd-client: RAID, and scripts, wait for them.  Swap cannot take one. */
static void take_persistence(struct front *f)
{
	if (!f->persist && !has_key(f, "swap") && !has_key(f, "dead-timeout"))
		front_set_key(f, "dead-timeout", "0");
}

int front_take_tls(struct front *f)
{
	static const char *const keys[] = {
		[FRONT_CA] = "tls-ca-file",
		[FRONT_CERTIFICATE] = "tls-cert-file",
		[FRONT_KEY] = "tls-key-file",
	};

	if (!f->tls)
		return 0;
	front_set_key(f, "tls", "require");
	for (size_t i = 0; i < ARRAY_SIZE(keys); i++) {
		_cleanup_free_ char *path = f->files[i] ? absolute_path(f->files[i]) : NULL;

		if (path)
			front_set_key(f, keys[i], path);
	}
	return 0;
}

static int check_keys(const struct front *f)
{
	struct device_keys k;
	char error[CONF_ERROR_MAX];
	int r = 0;

	device_keys_init(&k);
	json_object_object_foreach(f->keys, key, value)
		if (r == 0)
			r = device_keys_set(&k, key, json_object_get_string(value), error);
	if (r == 0)
		r = device_keys_check(&k, error);
	device_keys_deinit(&k);
	return r < 0 ? front_error(f, "%s", error) : 0;
}

static int build_keys(struct front *f, struct json_object *params)
{
	bool nbdtab = means_nbdtab(f);
	int r = front_take_tls(f);

	if (r == 0)
		r = nbdtab ? take_nbdtab(f, params) : take_server(f);
	if (r == 0 && !nbdtab)
		take_persistence(f);
	if (r == 0 && f->device)
		add_text(params, "device", f->device);
	if (r == 0 && json_object_object_length(f->keys)) {
		r = check_keys(f);
		json_object_object_add(params, "keys", json_object_get(f->keys));
	}
	/* What is there already is not what this call asks for: scripts try one device after
	 * the other until one is free. */
	json_object_object_add(params, "fresh", json_object_new_boolean(true));
	return r;
}

/* ---- asking ------------------------------------------------------------------------ */

static int on_attached(struct json_object *params, void *userdata)
{
	struct connected *c = userdata;

	member_text(c->device, params, "device");
	return 0;
}

static int on_status(struct json_object *params, void *userdata)
{
	struct connected *c = userdata;
	struct json_object *list = member(params, "devices");

	if (json_object_is_type(list, json_type_array) && json_object_array_length(list))
		c->size = member_u64(json_object_array_get_idx(list, 0), "size");
	return 0;
}

static void print_connected(const struct front *f, struct connected *c)
{
	struct json_object *params = cli_must(json_object_new_object());

	add_text(params, "device", c->device);
	manager_call(&f->cli, &(struct manager_request){ .method = "Status",
		     .params = params, .reply = on_status, .userdata = c });
	printf("Negotiation: ..size = %lluMB\nConnected %s\n",
	       (unsigned long long)(c->size >> 20), c->device);
	fflush(stdout);
}

int front_connect(struct front *f)
{
	struct json_object *params;
	struct connected c = {};
	int r;

	if (!f->host) {
		front_usage(stderr);
		return front_error(f, "no information specified: what is to be done?");
	}
	params = cli_must(json_object_new_object());
	r = build_keys(f, params);
	if (r == 0)
		r = cli_start_daemon(&f->cli, &(struct start_spec){
					.mark = f->systemd_mark }) != CLI_OK;
	if (r) {
		json_object_put(params);
		return r;
	}
	r = manager_call(&f->cli, &(struct manager_request){ .method = "Attach",
			 .params = params, .reply = on_attached, .userdata = &c });
	if (r != CLI_OK)
		return 1;
	print_connected(f, &c);
	return f->foreground ? front_wait(f, c.device) : 0;
}
