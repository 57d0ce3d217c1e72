/* nbdctl: what its files share. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <json-c/json.h>

#include "lib/util/macro.h"

/* Exit statuses; nbdctl(8) documents them. */
enum cli_status {
	CLI_OK,
	CLI_FAILED,
	CLI_USAGE,
	CLI_NO_DAEMON,
	CLI_NO_DEVICE,
	CLI_HELD,
	CLI_LIST_FORBIDDEN,
	CLI_LIST_UNSUPPORTED,
	CLI_PERMISSION,
	CLI_LOST,
};

#define CLI_WORDS_MAX	2
#define CLI_OPTIONS_MAX	4
#define CLI_TEXT_MAX	4400		/* a URI or an export name, escaped in parts */

struct cli {
	const char *program;		/* in front of messages; NULL: nbdctl */
	const char *runtime_dir;
	bool json;			/* errors go to stdout as JSON, too */
};

struct cli_option {
	const char *name;		/* without the dashes */
	const char *value;		/* placeholder, or NULL for a flag */
	const char *text;
};

struct cli_arguments {
	const char *words[CLI_WORDS_MAX];
	size_t n_words;
	const char *options[CLI_OPTIONS_MAX];	/* as in the verb's table; "" for a flag */
	struct json_object *keys;	/* --KEY=VALUE of a verb that takes keys */
	bool help;
};

struct cli_verb {
	const char *name;
	const char *synopsis;		/* of its arguments */
	const char *summary;
	const char *text;		/* further paragraphs for its help, or NULL */
	struct cli_option options[CLI_OPTIONS_MAX];
	size_t min_words, max_words;
	const char *keys;		/* it takes the keys of nbdd.conf that begin so as options;
					 * NULL: none */
	int (*run)(struct cli *cli, const struct cli_arguments *a);
};

extern const struct cli_verb cli_verbs[];
extern const size_t n_cli_verbs;
const struct cli_verb *cli_find_verb(const char *name);

/* arguments.c: parse what follows the verb.  A CLI_ status; errors have been reported. */
int cli_parse(struct cli *cli, const struct cli_verb *verb, char **argv,
	      struct cli_arguments *ret);

/* help.c */
void cli_help(void);
void cli_help_verb(const struct cli_verb *verb);

/* report.c: one clear sentence on stderr and, with --json, as an object on stdout.
 * Returns STATUS. */
_printf_(3, 4) int cli_error(const struct cli *cli, enum cli_status status,
			     const char *format, ...);
_printf_(1, 2) void cli_warning(const char *format, ...);
/* One for each text of LIST; any other JSON value is none. */
void cli_warnings(struct json_object *list);
/* Print O (taken) as indented JSON. */
void cli_print_json(struct json_object *o);
/* Print O as JSON in one line. */
void cli_print_json_line(struct json_object *o);
/* Ends the program when there was no memory for P; returns P. */
void *cli_must(void *p);

/* member.c: members of the daemon's JSON, whatever is in it.  Text is escaped into BUF. */
char *member_text(char buf[static CLI_TEXT_MAX], struct json_object *o, const char *key);
uint64_t member_u64(struct json_object *o, const char *key);
bool member_bool(struct json_object *o, const char *key);
struct json_object *member(struct json_object *o, const char *key);
/* An array's text elements, escaped, with BETWEEN them. */
char *member_list(char buf[static CLI_TEXT_MAX], struct json_object *o, const char *key,
		  const char *between);

/* manager.c: one call to the daemon. */
struct manager_request {
	const char *method;		/* of io.nbdd.Manager */
	struct json_object *params;	/* taken; NULL: none */
	bool more;
	int (*reply)(struct json_object *params, void *userdata);	/* not 0: enough */
	/* Every TICK_USEC (0: a second) while waiting, or NULL; -ECANCELED: enough. */
	int (*tick)(void *userdata);
	uint64_t tick_usec;
	void (*done)(void *userdata);	/* before an error is reported, or NULL */
	/* True: this error needs no report.  Or NULL. */
	bool (*error)(const char *name, struct json_object *params, void *userdata);
	bool quiet;			/* report nothing */
	uint64_t timeout_usec;		/* for each reply; 0: as long as it takes */
	void *userdata;
};
/* A CLI_ status; errors have been reported. */
int manager_call(const struct cli *cli, const struct manager_request *q);

/* show.c: devices for people.  WIDTH in columns, 0: no limit; AGE_USEC: how old the
 * information is. */
void show_devices(FILE *out, struct json_object *devices, unsigned width, bool colour,
		  uint64_t age_usec);
/* detail.c */
void show_device(FILE *out, struct json_object *device, bool colour, uint64_t age_usec);
/* What is wrong with a device, in one sentence; "" while nothing is. */
char *device_trouble(char buf[static CLI_TEXT_MAX], struct json_object *device,
		     uint64_t age_usec);
#define DATE_MAX 48
char *date_text(char buf[static DATE_MAX], uint64_t usec);	/* of CLOCK_REALTIME */
/* The escape sequence for a state, "" for one that needs none. */
const char *state_colour(const char *state);

/* server.c: an array of objects of `name` and `description`.  KEYS (or NULL): of TLS. */
int cli_fetch_list(struct cli *cli, const char *uri, struct json_object *keys,
		   struct json_object *list);
void cli_print_list(struct json_object *list);

/* front.c: the program as nbd-client; nbdctl.c: as either.  The exit status. */
int cli_front(int argc, char **argv), cli_main(int argc, char **argv);

/* terminal.c */
bool terminal_colour(FILE *f);
/* Can a screen be drawn on it? */
bool terminal_screen(FILE *f);
/* Of the terminal on F; 0: none. */
void terminal_size(FILE *f, unsigned *ret_columns, unsigned *ret_lines);

/* The verbs, in files of these names; reconnect in detach.c, list and info in server.c. */
typedef int cli_verb_fn(struct cli *cli, const struct cli_arguments *a);
cli_verb_fn verb_attach, verb_detach, verb_reconnect, verb_move, verb_reload,
	    verb_status, verb_list, verb_info, verb_map, verb_check, verb_hold, verb_udev,
	    verb_boot, verb_events, verb_help;
