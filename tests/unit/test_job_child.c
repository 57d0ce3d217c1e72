/* A child of the spawner whose answer is bytes alone, and one that somebody has taken over. */
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/child.h"
#include "daemon/spawner.h"
#include "lib/util/clock.h"
#include "lib/util/fd.h"
#include "tests/unit/unit.h"

#define ANSWER "its whole answer"

int __wrap_spawner_ask(struct spawner *s, enum sandbox_role role, const char *what, int sock,
		       int job, int kept);

/* What the child has, and the spawner until it has reaped it. */
static int sock_of_child, pipe_of_child;

int __wrap_spawner_ask(struct spawner *s, enum sandbox_role role, const char *what, int sock,
		       int job, int kept)
{
	sock_of_child = fcntl(sock, F_DUPFD_CLOEXEC, 0);
	pipe_of_child = fcntl(kept, F_DUPFD_CLOEXEC, 0);
	return 0;
}

struct made {
	sd_event *event;
	struct child *child;
	unsigned alive, answers;
	int error;
	char text[64];
};

static void on_answer(const struct child_answer *answer, void *userdata)
{
	struct made *m = userdata;

	m->answers++;
	m->error = answer->error;
	CHECK_INT(answer->fd, -1);
	if (!answer->error)
		snprintf(m->text, sizeof(m->text), "%.*s", (int)answer->len,
			 (const char *)answer->data);
}

static void make(struct made *m, uint64_t limit_usec)
{
	static struct spawner spawner;

	*m = (struct made){};
	CHECK(sd_event_new(&m->event) >= 0);
	CHECK_INT(child_start(m->event, &(struct child_spec){
			.what = "resolve x", .spawner = &spawner, .role = SANDBOX_RESOLVE,
			.job = -1, .kept = -1, .bytes = strlen(ANSWER),
			.limit_usec = limit_usec, .alive = &m->alive },
		on_answer, m, &m->child), 0);
	CHECK_INT(m->alive, 1);
}

static void run(struct made *m)
{
	while (sd_event_run(m->event, 0) > 0)
		;
}

static void say(const char *text)
{
	CHECK_INT(write(pipe_of_child, text, strlen(text)), strlen(text));
}

/* The process has been reaped. */
static void end(struct made *m)
{
	close(sock_of_child);
	close(pipe_of_child);
	run(m);
	CHECK_INT(m->alive, 0);
	sd_event_unref(m->event);
}

static bool is_told_to_end(void)
{
	char byte;

	return recv(sock_of_child, &byte, 1, MSG_DONTWAIT) == 0;
}

TEST(an_answer_of_bytes_may_come_in_parts)
{
	struct made m;

	make(&m, USEC_PER_MINUTE);
	say("its whole");
	run(&m);
	CHECK_INT(m.answers, 0);
	say(" answer");
	run(&m);
	CHECK_INT(m.answers, 1);
	CHECK_INT(m.error, 0);
	CHECK_STR(m.text, ANSWER);
	/* It counts until it is reaped, and is ended when it goes on. */
	CHECK_INT(m.alive, 1);
	CHECK(is_told_to_end());
	say("and more than nbdd wants to hear");
	run(&m);
	CHECK_INT(m.answers, 1);
	end(&m);
}

TEST(who_has_taken_over_a_child_that_answers_in_bytes_can_send_no_descriptor)
{
	struct made m;

	make(&m, USEC_PER_MINUTE);
	CHECK_INT(fd_send(sock_of_child, "x", 1, &sock_of_child, 1), -EPIPE);
	run(&m);
	CHECK_INT(m.answers, 0);
	end(&m);
	CHECK_INT(m.error, -ECHILD);
}

TEST(half_an_answer_is_none)
{
	struct made m;

	make(&m, USEC_PER_MINUTE);
	say("its");
	end(&m);
	CHECK_INT(m.answers, 1);
	CHECK_INT(m.error, -ECHILD);
}

TEST(a_child_that_does_not_answer_is_ended_and_counts_until_then)
{
	struct made m;

	make(&m, 0);
	CHECK(sd_event_run(m.event, USEC_PER_MINUTE) > 0);
	CHECK_INT(m.answers, 1);
	CHECK_INT(m.error, -ETIMEDOUT);
	CHECK(is_told_to_end());
	CHECK_INT(m.alive, 1);
	end(&m);
	CHECK_INT(m.answers, 1);
}
