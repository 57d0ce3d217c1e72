/* list and info: asking a server without the daemon, through the library. */
#include <errno.h>
#include <libnbd.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/cli/cli.h"
#include "daemon/cli/server.h"
#include "lib/util/clock.h"
#include "lib/util/escape.h"
#include <nbdd.h>

#define TIMEOUT_USEC	(15 * USEC_PER_SEC)	/* of one step, as connect-timeout */

#define FAREWELL_MSEC	500

/* Error replies (NBD protocol, option reply types), as people understand them. */
#define REP_ERR(n)	((INT64_C(1) << 31) + (n))
#define REP_ERR_UNSUP	REP_ERR(1)
#define REP_ERR_POLICY	REP_ERR(2)

static const struct {
	int64_t reply;
	const char *text;
} refusals[] = {
	{ REP_ERR_UNSUP, "the server does not know this request" },
	{ REP_ERR_POLICY, "the server's policy forbids it" },
	{ REP_ERR(3), "the server finds the request invalid" },
	{ REP_ERR(4), "the server's platform does not support it" },
	{ REP_ERR(5), "the server requires TLS: use a URI that starts with nbds" },
	{ REP_ERR(6), "the server has no export of this name (see `nbdctl list`)" },
	{ REP_ERR(7), "the server is shutting down" },
	{ REP_ERR(8), "the server requires to agree on block sizes" },
	{ REP_ERR(9), "the request is too big for the server" },
};

int server_error(const struct server *s, enum cli_status status, const char *what)
{
	char uri[CLI_TEXT_MAX], text[CLI_TEXT_MAX];
	const char *why = what ? what : nbd_get_error();

	if (!why)
		why = "unknown error";
	/* The library names its function first, which is for programmers. */
	if (!what && strncmp(why, "nbd_", 4) == 0 && strstr(why, ": "))
		why = strstr(why, ": ") + 2;
	return cli_error(s->cli, status, "%s: %s",
			 escape_text(uri, sizeof(uri), s->uri, strlen(s->uri)),
			 escape_text(text, sizeof(text), why, strlen(why)));
}

/* Let the handle work while BUSY says so. */
static int run_while(struct server *s, bool (*busy)(struct server *s))
{
	uint64_t deadline = now_usec() + TIMEOUT_USEC;

	while (busy(s)) {
		uint64_t left = usec_sub(deadline, now_usec());

		if (!left)
			return server_error(s, CLI_FAILED, "no answer within 15 s");
		if (nbd_poll(s->h, (int)(left / USEC_PER_MSEC) + 1) < 0)
			return server_error(s, CLI_FAILED, NULL);
	}
	return CLI_OK;
}

static bool connecting(struct server *s)
{
	return nbd_aio_is_connecting(s->h) > 0;
}

static bool asking(struct server *s)
{
	return !s->answered;
}

static int set_tls(struct nbd_handle *h, const char *word)
{
	return nbd_set_tls(h, strcmp(word, "require") == 0 ? LIBNBD_TLS_REQUIRE :
			   strcmp(word, "allow") == 0 ? LIBNBD_TLS_ALLOW : LIBNBD_TLS_DISABLE);
}

/* The values have been checked when they were parsed. */
static int apply_keys(struct nbd_handle *h, struct json_object *keys)
{
	static const struct {
		const char *key;
		int (*set)(struct nbd_handle *h, const char *value);
	} setters[] = {
		{ "tls", set_tls }, { "tls-certificates", nbd_set_tls_certificates },
		{ "tls-ca-file", nbdd_set_tls_ca_file },
		{ "tls-cert-file", nbdd_set_tls_certificate_file },
		{ "tls-key-file", nbdd_set_tls_key_file },
		{ "tls-psk-file", nbd_set_tls_psk_file },
		{ "tls-username", nbd_set_tls_username },
		{ "tls-hostname", nbd_set_tls_hostname },
		{ "tls-priority", nbd_set_tls_priority },
	};

	for (size_t i = 0; i < ARRAY_SIZE(setters); i++) {
		struct json_object *value = member(keys, setters[i].key);

		if (value && setters[i].set(h, json_object_get_string(value)) < 0)
			return -1;
	}
	return 0;
}

int server_connect(struct server *s)
{
	int r;

	s->h = nbd_create();
	if (!s->h || nbd_set_opt_mode(s->h, true) < 0 ||
	    nbd_set_full_info(s->h, true) < 0 ||
	    nbd_set_uri_allow_local_file(s->h, true) < 0 ||
	    nbd_set_uri_allow_tls_priority(s->h, true) < 0 || apply_keys(s->h, s->keys) < 0 ||
	    nbd_aio_connect_uri(s->h, s->uri) < 0)
		return server_error(s, CLI_FAILED, NULL);
	r = run_while(s, connecting);
	if (r != CLI_OK)
		return r;
	if (nbd_aio_is_negotiating(s->h) <= 0 && nbd_aio_is_ready(s->h) <= 0)
		return server_error(s, CLI_FAILED, NULL);
	return CLI_OK;
}

/* The answer to a farewell is awaited, so that the server meets no reset, but not for long:
 * one that keeps silent then holds nobody up. */
void server_close(struct server *s)
{
	int r = -1;

	if (s->h && nbd_aio_is_negotiating(s->h) > 0)
		r = nbd_aio_opt_abort(s->h);
	else if (s->h && nbd_aio_is_ready(s->h) > 0)
		r = nbd_aio_disconnect(s->h, 0);
	if (r == 0)
		nbd_poll(s->h, FAREWELL_MSEC);
	nbd_close(s->h);
}

static int on_answer(void *userdata, int *error)
{
	struct server *s = userdata;

	s->answered = true;
	s->error = *error;
	return 1;
}

int server_wait(struct server *s, int begun)
{
	int r;

	if (begun < 0) {
		s->error = nbd_get_errno() ? nbd_get_errno() : EIO;
		return CLI_OK;
	}
	r = run_while(s, asking);
	return r;
}

nbd_completion_callback server_answer(struct server *s)
{
	s->answered = false;
	s->error = 0;
	return (nbd_completion_callback){ .callback = on_answer, .user_data = s };
}

int server_refused(const struct server *s)
{
	int64_t reply = nbd_aio_is_negotiating(s->h) > 0 ? nbdd_get_option_reply(s->h) : 0;

	for (size_t i = 0; i < ARRAY_SIZE(refusals); i++)
		if (refusals[i].reply == reply)
			return server_error(s, CLI_FAILED, refusals[i].text);
	return server_error(s, CLI_FAILED, s->error ? strerror(s->error) : NULL);
}

/* ---- list -------------------------------------------------------------------------- */

static int on_export(void *userdata, const char *name, const char *description)
{
	struct json_object *list = userdata, *o = cli_must(json_object_new_object());

	json_object_object_add(o, "name", cli_must(json_object_new_string(name)));
	json_object_object_add(o, "description",
			       cli_must(json_object_new_string(description)));
	json_object_array_add(list, o);
	return 0;
}

static int explain_no_list(const struct server *s)
{
	switch (nbd_aio_is_negotiating(s->h) > 0 ? nbdd_get_option_reply(s->h) : 0) {
	case REP_ERR_POLICY:
		return server_error(s, CLI_LIST_FORBIDDEN, "the server's policy forbids to "
				    "list its exports");
	case REP_ERR_UNSUP:
		return server_error(s, CLI_LIST_UNSUPPORTED, "the server does not know how to "
				    "list its exports");
	default:
		return server_refused(s);
	}
}

static int fetch_list(struct server *s, struct json_object *list)
{
	const char *protocol = nbd_get_protocol(s->h);
	int r;

	if (nbd_aio_is_ready(s->h) > 0 || (protocol && strcmp(protocol, "newstyle-fixed") != 0))
		return server_error(s, CLI_LIST_UNSUPPORTED, "the server is too old to list "
				    "its exports: it does not speak fixed newstyle");
	r = server_wait(s, nbd_aio_opt_list(s->h, (nbd_list_callback){
		.callback = on_export, .user_data = list }, server_answer(s)));
	return r == CLI_OK && s->error ? explain_no_list(s) : r;
}

void cli_print_list(struct json_object *list)
{
	char name[CLI_TEXT_MAX], text[CLI_TEXT_MAX];

	for (size_t i = 0; i < json_object_array_length(list); i++) {
		struct json_object *o = json_object_array_get_idx(list, i);

		member_text(name, o, "name");
		member_text(text, o, "description");
		/* The server's default export has no name, which is hard to see. */
		printf("%s%s%s\n", *name ? name : "\"\"", *text ? ": " : "", text);
	}
}

int cli_fetch_list(struct cli *cli, const char *uri, struct json_object *keys,
		   struct json_object *list)
{
	struct server s = { .cli = cli, .uri = uri, .keys = keys };
	int r = server_connect(&s);

	if (r == CLI_OK)
		r = fetch_list(&s, list);
	server_close(&s);
	return r;
}

int verb_list(struct cli *cli, const struct cli_arguments *a)
{
	struct json_object *list = cli_must(json_object_new_array()), *o;
	int r = cli_fetch_list(cli, a->words[0], a->keys, list);

	if (r == CLI_OK && cli->json) {
		o = cli_must(json_object_new_object());
		json_object_object_add(o, "exports", json_object_get(list));
		cli_print_json(o);
	} else if (r == CLI_OK) {
		cli_print_list(list);
	}
	json_object_put(list);
	return r;
}
