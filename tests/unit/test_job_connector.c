/* When a connector's job is written down. */
#include <netinet/in.h>
#include <sys/un.h>
#include <systemd/sd-event.h>
#include <unistd.h>

#include <libnbd.h>
#include "daemon/connector_child.h"
#include "lib/util/cleanup.h"
#include "tests/unit/unit.h"

/* The children that were asked for; none of them is made. */
static struct {
	struct child_spec spec;
	child_done_fn done;
	void *userdata;
} asked[2];
static size_t n_asked;

int __wrap_child_start(sd_event *event, const struct child_spec *spec, child_done_fn done,
		       void *userdata, struct child **ret);

int __wrap_child_start(sd_event *event, const struct child_spec *spec, child_done_fn done,
		       void *userdata, struct child **ret)
{
	CHECK(n_asked < ARRAY_SIZE(asked));
	asked[n_asked].spec = *spec;
	asked[n_asked].done = done;
	asked[n_asked++].userdata = userdata;
	*ret = NULL;
	return 0;
}

static void on_done(const struct connector_result *result, void *userdata)
{
}

/* A reload may replace a key while the connection to a path waits, and frees the old one. */
TEST(a_job_keeps_the_keys_of_its_beginning_while_a_path_is_reached)
{
	char hostname[] = "before", export_name[] = "disk";
	struct nbdd_address address = { .len = sizeof(struct sockaddr_un),
					.addr.ss_family = AF_UNIX };
	struct target target = { .n_servers = 1, .export_name = export_name,
				 .servers[0] = { .host = "/s", .label = "/s", .n_addresses = 1,
						 .addresses = &address } };
	struct tls_plan tls = { .mode = LIBNBD_TLS_DISABLE, .hostname = hostname };
	struct connectors *all;
	struct connector *c;
	struct connector_job *job;
	struct job seen;
	sd_event *event;
	int32_t error = 0;

	n_asked = 0;
	CHECK_INT(sd_event_new(&event), 0);
	CHECK_INT(connectors_new(event, NULL, NULL, &all), 0);
	CHECK_INT(connector_start(all, &(struct connector_spec){
			.name = "nbd0", .target = &target, .server = target_server(&target),
			.tls = &tls, .limit_usec = 1000000, .done = on_done }, &c), 0);
	CHECK_INT(n_asked, 1);
	CHECK_INT(asked[0].spec.role, SANDBOX_REACH);
	memset(hostname, 'x', strlen(hostname));
	memset(export_name, 'x', strlen(export_name));
	asked[0].done(&(struct child_answer){ .data = &error, .len = sizeof(error),
					      .fd = dup(STDIN_FILENO) }, asked[0].userdata);
	CHECK_INT(n_asked, 2);
	CHECK_INT(asked[1].spec.role, SANDBOX_DIAL);
	CHECK_INT(job_copy(asked[1].spec.job, &seen), 0);
	CHECK_INT(connector_job_read(&seen, &job), 0);
	CHECK_STR(job->tasks[0].tls.hostname, "before");
	CHECK_STR(job->tasks[0].target->export_name, "disk");
	free(job);
	job_free(&seen);
	connector_cancel(c);
	connectors_free(all);
	sd_event_unref(event);
}
