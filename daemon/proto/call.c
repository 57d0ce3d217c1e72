/* Calls: finding the method, answering, and the interface org.varlink.service. */
#include "daemon/proto/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "lib/util/cleanup.h"

/* https://varlink.org/Service */
static const char service_name[] = "org.varlink.service";
static const char service_text[] =
	"# Every Varlink service has this interface.\n"
	"interface org.varlink.service\n\n"
	"method GetInfo() -> (vendor: string, product: string, version: string, "
	"url: string, interfaces: []string)\n\n"
	"method GetInterfaceDescription(interface: string) -> (description: string)\n\n"
	"error InterfaceNotFound(interface: string)\n\n"
	"error MethodNotFound(method: string)\n\n"
	"error MethodNotImplemented(method: string)\n\n"
	"error InvalidParameter(parameter: string)\n\n"
	"error PermissionDenied()\n\n"
	"error ExpectedMore()\n";

/* OBJECT (taken) with one more string; NULL: no memory. */
static struct json_object *with_string(struct json_object *object, const char *key,
				       const char *value)
{
	if (varlink_json_add(object, key, json_object_new_string(value)) == 0)
		return object;
	json_object_put(object);
	return NULL;
}

struct json_object *varlink_error_object(const char *error, struct json_object *params)
{
	struct json_object *o = with_string(json_object_new_object(), "error", error);

	if (o && varlink_json_add(o, "parameters", params ? params :
				  json_object_new_object()) == 0)
		return o;
	if (!o)
		json_object_put(params);
	json_object_put(o);
	return NULL;
}

struct json_object *varlink_invalid_object(const char *parameter, const char *text)
{
	return with_string(with_string(json_object_new_object(), "parameter", parameter),
			   "message", text);
}

static void free_call(struct varlink_call *call)
{
	varlink_message_deinit(&call->message);
	json_object_put(call->params);
	free(call);
}

/* Send O (taken; NULL: no memory for it) if anybody waits for it, and forget the call. */
static int end_call(struct varlink_call *call, struct json_object *o)
{
	struct varlink_connection *c = call->connection;
	bool wanted = c && !c->hung_up && !call->message.oneway;
	int r = 0;

	if (wanted && !o)
		r = -ENOMEM;
	else if (wanted)
		r = varlink_connection_send(c, o, false);
	else
		json_object_put(o);
	if (r < 0)
		varlink_connection_cut(c, "cannot send the reply: %s", strerror(-r));
	if (c) {
		c->call = NULL;
		varlink_connection_wake(c);
	}
	free_call(call);
	return r;
}

/* { "parameters": PARAMS (taken) } */
static struct json_object *result_object(struct json_object *params)
{
	struct json_object *o = json_object_new_object();

	if (varlink_json_add(o, "parameters", params ? params :
			     json_object_new_object()) == 0)
		return o;
	json_object_put(o);
	return NULL;
}

int varlink_call_reply(struct varlink_call *call, struct json_object *params)
{
	return end_call(call, result_object(params));
}

int varlink_call_error(struct varlink_call *call, const char *error,
		       struct json_object *params)
{
	return end_call(call, varlink_error_object(error, params));
}

int varlink_call_invalid(struct varlink_call *call, const char *parameter,
			 const char *text)
{
	return varlink_call_error(call, VARLINK_INVALID_PARAMETER,
				  varlink_invalid_object(parameter, text));
}

/* One of the standard's errors that carry a single name. */
static void fail_with_name(struct varlink_call *call, const char *error, const char *key,
			   const char *value)
{
	varlink_call_error(call, error,
			   with_string(json_object_new_object(), key, value));
}

int varlink_call_notify(struct varlink_call *call, struct json_object *params)
{
	_cleanup_json_ struct json_object *o = NULL;
	struct varlink_connection *c = call->connection;
	int r;

	if (!call->message.more) {
		json_object_put(params);
		return -EINVAL;
	}
	o = result_object(params);
	if (varlink_json_add(o, "continues", json_object_new_boolean(true)) < 0)
		return -ENOMEM;
	if (!c || c->hung_up)
		return 0;
	r = varlink_connection_send(c, STEAL_PTR(o), true);
	if (r < 0)
		varlink_connection_cut(c, "cannot send a reply: %s", strerror(-r));
	varlink_connection_wake(c);
	return r;
}

void varlink_call_drop(struct varlink_call *call)
{
	struct varlink_connection *c = call->connection;

	if (c && !c->hung_up)
		varlink_connection_cut(c, "its call came to nothing");
	if (c) {
		c->call = NULL;
		varlink_connection_wake(c);
	}
	free_call(call);
}

bool varlink_call_wants_more(const struct varlink_call *call)
{
	return call->message.more;
}

const struct ucred *varlink_call_peer(const struct varlink_call *call)
{
	return &call->peer;
}

void varlink_call_set_gone(struct varlink_call *call,
			   void (*fn)(struct varlink_call *call, void *userdata),
			   void *userdata)
{
	call->gone = fn;
	call->gone_userdata = userdata;
}

void varlink_call_wake(struct varlink_call *call)
{
	if (call->connection)
		varlink_connection_wake(call->connection);
}

void varlink_call_set_drained(struct varlink_call *call,
			      void (*fn)(struct varlink_call *call, void *userdata),
			      void *userdata)
{
	call->drained = fn;
	call->drained_userdata = userdata;
}

bool varlink_call_drained(struct varlink_connection *c)
{
	if (c->call->drained)
		c->call->drained(c->call, c->call->drained_userdata);
	return c->out.len;
}

void varlink_call_gone(struct varlink_connection *c)
{
	struct varlink_call *call = c->call;

	if (!call || !call->gone)
		return;
	void (*fn)(struct varlink_call *, void *) = STEAL_PTR(call->gone);

	fn(call, call->gone_userdata);
}

bool varlink_param_string(struct varlink_call *call, struct json_object *params,
			  const char *name, bool required, const char **ret)
{
	struct json_object *o = NULL;

	json_object_object_get_ex(params, name, &o);
	if (!o && !required)
		return true;
	if (!o || !json_object_is_type(o, json_type_string)) {
		varlink_call_invalid(call, name, o ? "must be a string" : "is missing");
		return false;
	}
	*ret = json_object_get_string(o);
	return true;
}

bool varlink_param_bool(struct varlink_call *call, struct json_object *params,
			const char *name, bool *ret)
{
	struct json_object *o = NULL;

	json_object_object_get_ex(params, name, &o);
	if (o && !json_object_is_type(o, json_type_boolean)) {
		varlink_call_invalid(call, name, "must be true or false");
		return false;
	}
	if (o)
		*ret = json_object_get_boolean(o);
	return true;
}

/* ---- org.varlink.service ----------------------------------------------------------- */

static void get_info(struct varlink_call *call, struct json_object *params,
		     void *userdata)
{
	static const char *const texts[][2] = {
		{ "vendor", "nbdd" }, { "product", "nbdd" },
		{ "version", NBDD_VERSION }, { "url", "man:nbdd(8)" },
	};
	struct varlink_server *s = userdata;
	struct json_object *o = json_object_new_object();
	struct json_object *names = json_object_new_array();

	for (size_t i = 0; i < ARRAY_SIZE(texts); i++)
		o = with_string(o, texts[i][0], texts[i][1]);
	if (names) {
		json_object_array_add(names, json_object_new_string(service_name));
		json_object_array_add(names, json_object_new_string(s->iface->name));
	}
	if (varlink_json_add(o, "interfaces", names) < 0) {
		json_object_put(o);
		varlink_call_drop(call);
		return;
	}
	varlink_call_reply(call, o);
}

static void get_description(struct varlink_call *call, struct json_object *params,
			    void *userdata)
{
	struct varlink_server *s = userdata;
	const char *name = NULL, *text = NULL;

	if (!varlink_param_string(call, params, "interface", true, &name))
		return;
	if (strcmp(name, service_name) == 0)
		text = service_text;
	else if (strcmp(name, s->iface->name) == 0)
		text = s->iface->description;
	if (text)
		varlink_call_reply(call, with_string(json_object_new_object(),
						     "description", text));
	else
		fail_with_name(call, "org.varlink.service.InterfaceNotFound",
			       "interface", name);
}

static const struct varlink_method service_methods[] = {
	{ "GetInfo", false, get_info },
	{ "GetInterfaceDescription", false, get_description },
};

static const struct varlink_interface service = {
	service_name, service_text, service_methods, ARRAY_SIZE(service_methods),
};

/* ---- beginning --------------------------------------------------------------------- */

static const struct varlink_method *find_method(const struct varlink_interface *iface,
						const char *name)
{
	for (size_t i = 0; i < iface->n_methods; i++)
		if (strcmp(iface->methods[i].name, name) == 0)
			return &iface->methods[i];
	return NULL;
}

/* The interface's name is what stands before the last point of NAME, LEN bytes. */
static const struct varlink_interface *find_interface(const struct varlink_server *s,
						      const char *name, size_t len)
{
	const struct varlink_interface *all[] = { s->iface, &service };

	for (size_t i = 0; i < ARRAY_SIZE(all); i++)
		if (strlen(all[i]->name) == len && memcmp(all[i]->name, name, len) == 0)
			return all[i];
	return NULL;
}

static void fail_interface(struct varlink_call *call, const char *name, size_t len)
{
	struct json_object *o = json_object_new_object();

	if (varlink_json_add(o, "interface",
			     json_object_new_string_len(name, (int)len)) < 0) {
		json_object_put(o);
		o = NULL;
	}
	varlink_call_error(call, "org.varlink.service.InterfaceNotFound", o);
}

static bool may_call(const struct varlink_method *method, uid_t uid)
{
	return !method->root_only || uid == 0 || (method->own_user && uid == geteuid());
}

static void dispatch(struct varlink_call *call)
{
	struct varlink_server *s = call->server;
	const char *name = call->message.method, *dot = strrchr(name, '.');
	const struct varlink_interface *iface;
	const struct varlink_method *method;

	if (!dot) {
		varlink_call_invalid(call, "method", "has no interface in front of it");
		return;
	}
	iface = find_interface(s, name, (size_t)(dot - name));
	if (!iface) {
		fail_interface(call, name, (size_t)(dot - name));
		return;
	}
	method = find_method(iface, dot + 1);
	if (!method)
		fail_with_name(call, "org.varlink.service.MethodNotFound", "method",
			       name);
	else if (!may_call(method, call->peer.uid))
		varlink_call_error(call, VARLINK_PERMISSION_DENIED, NULL);
	else
		method->handler(call, call->params,
				iface == &service ? s : s->userdata);
}

void varlink_call_begin(struct varlink_connection *c, const char *text, size_t len)
{
	struct varlink_call *call;
	const char *why;

	call = calloc(1, sizeof(*call));
	if (!call) {
		varlink_connection_cut(c, "out of memory");
		return;
	}
	if (varlink_message_parse(text, len, &call->message, &why) < 0) {
		free_call(call);
		varlink_connection_reject(c, why);
		return;
	}
	call->params = call->message.params ? json_object_get(call->message.params)
					    : json_object_new_object();
	if (!call->params) {
		free_call(call);
		varlink_connection_cut(c, "out of memory");
		return;
	}
	call->connection = c;
	call->server = c->server;
	call->peer = c->peer;
	c->call = call;
	dispatch(call);
}
