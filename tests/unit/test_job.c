/* A connector's job: what is written comes out, and what nobody can have written does not. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <unistd.h>

#include <libnbd.h>
#include "daemon/connector_child.h"
#include "lib/util/cleanup.h"
#include "tests/unit/unit.h"

struct fixture {
	struct nbdd_address addresses[2];
	struct server server;
	struct target targets[CONNECTOR_TASKS_MAX];
	struct connector_job job;
	struct samples samples;
};

static void begin(struct fixture *f, size_t n)
{
	static const char *const exports[] = { "one", "two", "" };

	memset(f, 0, sizeof(*f));
	for (size_t i = 0; i < 2; i++) {
		struct sockaddr_in *a = (struct sockaddr_in *)&f->addresses[i].addr;

		f->addresses[i].len = sizeof(*a);
		*a = (struct sockaddr_in){ .sin_family = AF_INET, .sin_port = htons(10809),
					   .sin_addr.s_addr = htonl(0x7f000001u + (uint32_t)i) };
	}
	snprintf(f->server.host, sizeof(f->server.host), "server.example");
	snprintf(f->server.label, sizeof(f->server.label), "server.example:10809");
	f->server.addresses = f->addresses;
	f->server.n_addresses = 2;
	for (size_t i = 0; i < n; i++) {
		f->targets[i].export_name = (char *)exports[i % 3];
		f->job.tasks[i] = (struct connector_task){
			.server = &f->server, .target = &f->targets[i],
			.tls = { .mode = LIBNBD_TLS_DISABLE, .hostname = "its name" } };
	}
	f->job.n = n;
}

TEST(what_is_written_comes_out)
{
	struct fixture f;
	struct connector_job *got;
	struct job written, seen;

	begin(&f, CONNECTOR_TASKS_MAX);
	CHECK_INT(connector_job_write(&f.job, &written), 0);
	CHECK_INT(job_copy(written.fd, &seen), 0);
	CHECK_INT(connector_job_read(&seen, &got), 0);
	CHECK_INT(got->n, CONNECTOR_TASKS_MAX);
	for (size_t i = 0; i < got->n; i++) {
		const struct server *s = got->tasks[i].server;

		CHECK_STR(got->tasks[i].target->export_name, f.targets[i].export_name);
		CHECK(server_same(s, &f.server));
		CHECK_STR(s->host, "server.example");
		CHECK_STR(got->tasks[i].tls.hostname, "its name");
		CHECK(!got->tasks[i].tls.priority && !got->tasks[i].tls.distrust);
		CHECK(!got->tasks[i].samples && !got->tasks[i].tls.image);
	}
	job_free(&seen);
	job_free(&written);
	CHECK(!written.data && written.fd < 0);
	job_free(&written);
}

TEST(a_single_task_has_its_samples_and_its_size)
{
	struct fixture f;
	struct connector_job *got;
	struct job written;

	begin(&f, 1);
	samples_choose(&f.samples, 64 << 20, 512);
	f.job.tasks[0].samples = &f.samples;
	f.targets[0].preinit_size = 4096;
	CHECK_INT(connector_job_write(&f.job, &written), 0);
	CHECK_INT(connector_job_read(&written, &got), 0);
	CHECK_INT(got->tasks[0].target->preinit_size, 4096);
	CHECK(memcmp(got->tasks[0].samples, &f.samples, sizeof(f.samples)) == 0);
	job_free(&written);
}

TEST(keys_that_are_not_there_are_no_job)
{
	struct fixture f;
	struct connector_job *got;
	struct job written;

	begin(&f, 1);
	f.job.tasks[0].tls.mode = LIBNBD_TLS_REQUIRE;
	CHECK_INT(connector_job_write(&f.job, &written), 0);
	CHECK_INT(connector_job_read(&written, &got), -EPROTO);
	job_free(&written);
}

TEST(what_was_read_does_not_change_with_what_was_written)
{
	struct fixture f;
	struct job written, seen;

	begin(&f, 1);
	CHECK_INT(connector_job_write(&f.job, &written), 0);
	CHECK_INT(job_copy(written.fd, &seen), 0);
	CHECK_INT(seen.size, written.size);
	CHECK(memcmp(seen.data, written.data, seen.size) == 0);
	memset(written.data, 0xff, written.size);
	CHECK(memcmp(seen.data, written.data, sizeof(uint32_t)) != 0);
	CHECK_INT(ftruncate(written.fd, 0), 0);
	CHECK_INT(*(uint32_t *)seen.data, 1);
	job_free(&seen);
	fd_close(written.fd);
}

/* Whatever a byte of it is changed to, it is refused, or every text has an end and every number
 * is within its limit: under a checker nothing is read that is not there. */
TEST(no_byte_of_a_job_can_lead_out_of_it)
{
	struct fixture f;
	struct connector_job *got;
	struct job written;
	uint8_t *bytes;
	size_t refused = 0;

	begin(&f, 2);
	CHECK_INT(connector_job_write(&f.job, &written), 0);
	bytes = written.data;
	for (size_t i = 0; i < written.size; i++) {
		uint8_t before = bytes[i];

		bytes[i] = 0xff;
		if (connector_job_read(&written, &got) == -EPROTO) {
			refused++;
		} else {
			CHECK(got->n > 0 && got->n <= CONNECTOR_TASKS_MAX);
			for (size_t k = 0; k < got->n; k++)
				CHECK(strlen(got->tasks[k].target->export_name) <=
				      TARGET_EXPORT_MAX);
			free(got);
		}
		bytes[i] = before;
	}
	CHECK(refused > 20);
	job_free(&written);
}

TEST(a_job_of_another_size_is_none)
{
	struct fixture f;
	struct connector_job *got;
	struct job written;

	begin(&f, 2);
	CHECK_INT(connector_job_write(&f.job, &written), 0);
	for (size_t size = 1; size < written.size; size += 997) {
		struct job cut = { .fd = -1, .size = size, .data = written.data };

		CHECK_INT(connector_job_read(&cut, &got), -EPROTO);
	}
	job_free(&written);
	CHECK_INT(job_new(0, &written), -E2BIG);
	CHECK_INT(job_new(JOB_MAX + 1, &written), -E2BIG);
	CHECK_INT(job_copy(STDIN_FILENO, &written) < 0, 1);
}
