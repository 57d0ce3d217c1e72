/* Any bytes as a state file, and as the JSON object in one: it is refused with a sentence, or
 * what was read is within its limits and reads the same once written. */
#include <stdlib.h>
#include <string.h>

#include "daemon/state.h"
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/promise.h"

static void check(const struct state *s)
{
	PROMISE(conf_check_name(s->name) == 0);
	PROMISE(s->n_links >= 1 && s->n_links <= CONF_CONNECTIONS_MAX);
	PROMISE(s->target.n_servers >= 1 && s->target.n_servers <= CONF_ADDRESSES_MAX + 1);
	PROMISE(s->target.current < s->target.n_servers);
	PROMISE(strlen(s->target.export_name) <= TARGET_EXPORT_MAX);
	PROMISE(s->size && s->size % s->block_size == 0);
	for (size_t i = 0; i < s->n_links; i++)
		PROMISE(s->links[i].relay_pid <= STATE_PID_MAX);
	for (size_t i = 0; i < s->target.n_servers; i++)
		PROMISE(s->target.servers[i].n_addresses >= 1 &&
			s->target.servers[i].n_addresses <= TARGET_ADDRESSES_MAX);
}

/* Written and read again it is the same text. */
static void check_round(const struct state *s)
{
	char error[STATE_ERROR_MAX], *text, *again;
	struct state *copy = calloc(1, sizeof(*copy));
	size_t len, again_len;

	if (state_format(s, &text, &len) < 0) {
		free(copy);
		return;			/* larger than what is ever written */
	}
	PROMISE(state_parse(text, len, copy, error) == 0);
	PROMISE(state_format(copy, &again, &again_len) == 0);
	PROMISE(len == again_len && memcmp(text, again, len) == 0);
	state_deinit(copy);
	free(copy);
	free(text);
	free(again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int (*const readers[])(const char *, size_t, struct state *, char *) = {
		state_parse, state_parse_object,
	};

	for (size_t i = 0; i < ARRAY_SIZE(readers); i++) {
		struct state *s = calloc(1, sizeof(*s));
		char error[STATE_ERROR_MAX] = "";

		if (readers[i]((const char *)data, size, s, error) == 0) {
			check(s);
			check_round(s);
		} else {
			PROMISE(error[0]);
		}
		state_deinit(s);
		free(s);
	}
	return 0;
}
