/* groups UNIX-SOCKET TCP-PORT: every group of calls once, for valgrind.  The server has 8 MiB,
 * all commands and base:allocation. */
#include <arpa/inet.h>
#include <errno.h>
#include <nbdd.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "tests/lib/check.h"
#include "tests/lib/groups.h"

#define SIZE (8 << 20)

static void check_and_close(struct nbd_handle *h)
{
	char buf[512];

	CHECK(nbd_get_size(h) == SIZE && nbd_pread(h, buf, sizeof(buf), 0, 0) == 0);
	CHECK(nbd_shutdown(h, 0) == 0 && nbd_aio_is_closed(h) == 1);
	nbd_close(h);
}

static struct nbd_handle *new_handle(void)
{
	struct nbd_handle *h = nbd_create();

	CHECK(h);
	return h;
}

static void connect_kinds(const char *socket_path, const char *port)
{
	char *command[] = { (char *)"nbdkit", (char *)"-s", (char *)"--exit-with-parent",
			    (char *)"memory", (char *)"8M", NULL };
	char *activated[] = { (char *)"nbdkit", (char *)"--exit-with-parent", (char *)"memory",
			      (char *)"8M", NULL };
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	struct sockaddr_in in = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port)),
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	struct nbdd_address addresses[2] = { { .len = sizeof(un) }, { .len = sizeof(in) } };
	struct nbd_handle *h;
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	CHECK(strlen(socket_path) < sizeof(un.sun_path));
	memcpy(un.sun_path, socket_path, strlen(socket_path));
	CHECK(connect(fd, (struct sockaddr *)&un, sizeof(un)) == 0);
	h = new_handle();
	CHECK(nbd_connect_socket(h, fd) == 0);
	check_and_close(h);
	h = new_handle();
	CHECK(nbd_connect_unix(h, socket_path) == 0);
	check_and_close(h);
	h = new_handle();
	CHECK(nbd_connect_tcp(h, "localhost", port) == 0);
	check_and_close(h);
	h = new_handle();
	CHECK(nbd_aio_connect(h, (struct sockaddr *)&in, sizeof(in)) == 0);
	while (nbd_aio_is_connecting(h))
		CHECK(nbd_poll(h, -1) == 1);
	check_and_close(h);
	h = new_handle();
	CHECK(nbd_connect_command(h, command) == 0 && nbd_get_subprocess_pid(h) > 0);
	check_and_close(h);
	h = new_handle();
	CHECK(nbd_set_socket_activation_name(h, "disk") == 0);
	CHECK(nbd_connect_systemd_socket_activation(h, activated) == 0);
	check_and_close(h);
	memcpy(&addresses[0].addr, &un, sizeof(un));
	((struct sockaddr_un *)&addresses[0].addr)->sun_path[1] = '\0';	/* nobody is there */
	memcpy(&addresses[1].addr, &in, sizeof(in));
	h = new_handle();
	CHECK(nbdd_connect_addresses(h, addresses, 2) == 0);
	check_and_close(h);
}

static void uris(const char *socket_path, const char *port)
{
	struct nbd_handle *h = new_handle();
	struct nbdd_uri *u;
	char uri[512], *back;

	snprintf(uri, sizeof(uri), "nbd+unix:///a%%20name?socket=%s", socket_path);
	CHECK(nbd_is_uri(h, uri) == 1 && nbd_connect_uri(h, uri) == 0);
	back = nbd_get_uri(h);
	CHECK(back && strcmp(back, uri) == 0);
	free(back);
	check_and_close(h);
	snprintf(uri, sizeof(uri), "nbd://127.0.0.1:%s/", port);
	h = new_handle();
	CHECK(nbd_connect_uri(h, uri) == 0);
	back = nbd_get_uri(h);
	CHECK(back && strcmp(back, uri) == 0);
	free(back);
	check_and_close(h);
	u = nbdd_uri_parse("nbds://alice@example.com/x?tls-psk-file=/k&tls-hostname=y");
	CHECK(u && strcmp(u->username, "alice") == 0 && strcmp(u->tls_psk_file, "/k") == 0);
	nbdd_uri_free(u);
	CHECK(!nbdd_uri_parse("http://example.com/") && nbd_get_errno() == EINVAL);
}

static void settings(void)
{
	struct nbd_handle *h = new_handle();
	char *name;

	CHECK(nbd_set_handle_name(h, "disk") == 0 && (name = nbd_get_handle_name(h)));
	CHECK(strcmp(name, "disk") == 0);
	free(name);
	CHECK(nbd_set_export_name(h, "a") == 0 && nbd_set_export_name(h, "b") == 0);
	CHECK((name = nbd_get_export_name(h)) && strcmp(name, "b") == 0);
	free(name);
	CHECK(nbd_set_tls_certificates(h, "/nowhere") == 0);
	CHECK(nbd_set_tls_username(h, "alice") == 0 && (name = nbd_get_tls_username(h)));
	free(name);
	CHECK(nbd_set_tls_psk_file(h, "/nowhere") == 0 && nbd_set_tls_hostname(h, "x") == 0);
	CHECK(nbd_add_meta_context(h, "x:a") == 0 && nbd_add_meta_context(h, "x:b") == 0);
	CHECK(nbd_get_nr_meta_contexts(h) == 2 && (name = nbd_get_meta_context(h, 1)));
	free(name);
	CHECK(nbd_clear_meta_contexts(h) == 0 && nbd_get_handle_size(h) > 0);
	CHECK(nbd_set_uri_allow_transports(h, LIBNBD_ALLOW_TRANSPORT_UNIX) == 0);
	CHECK(nbd_connect_uri(h, "nbd://localhost/") == -1 && nbd_get_errno() == EPERM);
	nbd_close(h);
}

static void errors(const char *socket_path)
{
	char *missing[] = { (char *)"/nonexistent/program", NULL };
	char *nothing[] = { NULL };
	struct nbd_handle *h = new_handle();
	char buf[512];

	CHECK(nbd_pread(h, buf, 512, 0, 0) == -1 && nbd_get_errno() == ENOTCONN);
	CHECK(nbd_connect_unix(h, "/nonexistent/socket") == -1 && nbd_aio_is_dead(h) == 1);
	nbd_close(h);
	h = new_handle();
	CHECK(nbd_connect_command(h, nothing) == -1 && nbd_get_errno() == EINVAL);
	CHECK(nbd_connect_command(h, missing) == -1);
	nbd_close(h);
	h = new_handle();
	CHECK(nbd_connect_tcp(h, "host.invalid", "10809") == -1);
	nbd_close(h);
	h = new_handle();
	CHECK(nbd_connect_unix(h, socket_path) == 0);
	CHECK(nbd_pread(h, buf, 512, SIZE, 0) == -1 && nbd_get_errno() == EINVAL);
	CHECK(nbd_pwrite(h, buf, 512, SIZE, 0) == -1 && nbd_get_errno() == ENOSPC);
	CHECK(nbd_set_strict_mode(h, 0) == 0);
	CHECK(nbd_pread(h, buf, 512, SIZE, 0) == -1 && nbd_get_errno() == EINVAL);
	CHECK(nbd_trim(h, 512, UINT64_MAX - 600, 0) == -1 && nbd_get_errno() > 0);
	CHECK(nbd_connect_unix(h, socket_path) == -1 && nbd_get_errno() == EINVAL);
	nbd_close(h);		/* without shutdown */
	nbd_close(NULL);
}

int main(int argc, char **argv)
{
	if (argc != 3)
		return 2;
	settings();
	connect_kinds(argv[1], argv[2]);
	uris(argv[1], argv[2]);
	errors(argv[1]);
	option_group(argv[1]);
	command_group(argv[1]);
	aio_group(argv[1]);
	puts("every group");
	return 0;
}
