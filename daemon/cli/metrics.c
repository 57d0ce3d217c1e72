/* status --prometheus: the daemon's metrics, on standard output or in a file. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/cli/status.h"
#include "lib/util/cleanup.h"

static int on_reply(struct json_object *params, void *userdata)
{
	struct json_object **text = userdata;

	*text = json_object_get(member(params, "text"));
	return 0;
}

static int fetch(const struct cli *cli, struct json_object **ret)
{
	struct json_object *text = NULL;
	int r = manager_call(cli, &(struct manager_request){
		.method = "Metrics", .reply = on_reply, .userdata = &text });

	if (r == CLI_OK && !json_object_is_type(text, json_type_string))
		r = cli_error(cli, CLI_FAILED, "nbdd's answer is not understood: is it of "
			      "another version?");
	if (r != CLI_OK)
		json_object_put(text);
	else
		*ret = text;
	return r;
}

/* Readable for everybody: the collector is another user. */
static int fill(int fd, const char *text, size_t len)
{
	if (fchmod(fd, 0644) < 0)
		return -errno;
	while (len) {
		ssize_t n = write(fd, text, len);

		if (n < 0)
			return -errno;
		text += n;
		len -= (size_t)n;
	}
	return 0;
}

/* Whoever reads PATH sees the old text or the new one, never a part. */
static int replace_file(const char *path, const char *text, size_t len)
{
	_cleanup_free_ char *fresh = NULL;
	_cleanup_close_ int fd = -1;
	int r;

	if (asprintf(&fresh, "%s.XXXXXX", path) < 0)
		fresh = NULL;
	fd = mkstemp(cli_must(fresh));
	if (fd < 0)
		return -errno;
	r = fill(fd, text, len);
	if (r == 0 && rename(fresh, path) < 0)
		r = -errno;
	if (r < 0)
		unlink(fresh);
	return r;
}

static int save(const struct cli *cli, const char *path, const char *text, size_t len)
{
	int r = replace_file(path, text, len);

	return r < 0 ? cli_error(cli, CLI_FAILED, "cannot write %s: %s", path, strerror(-r))
		     : CLI_OK;
}

/* A file that an nbdd wrote which is gone would go on saying that all is well. */
static int save_absence(const struct cli *cli, const char *path)
{
	static const char down[] = "# HELP nbdd_up Whether nbdd answers.\n"
				   "# TYPE nbdd_up gauge\nnbdd_up 0\n";

	(void)!save(cli, path, down, sizeof(down) - 1);	/* it has been reported */
	return CLI_NO_DAEMON;
}

int cli_metrics(const struct cli *cli, const char *path)
{
	struct json_object *text;
	int r = fetch(cli, &text);

	if (r != CLI_OK)
		return r == CLI_NO_DAEMON && path ? save_absence(cli, path) : r;
	if (path)
		r = save(cli, path, json_object_get_string(text),
			 (size_t)json_object_get_string_len(text));
	else
		fwrite(json_object_get_string(text), 1,
		       (size_t)json_object_get_string_len(text), stdout);
	json_object_put(text);
	return r;
}
