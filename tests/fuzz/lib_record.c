/* lib_record SOCKET <PLAN: the client of fuzz_lib_session.c on a real server. */
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "tests/fuzz/lib_client.h"

int main(int argc, char **argv)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);
	uint8_t plan[256];
	size_t len = fread(plan, 1, sizeof(plan), stdin);

	if (argc != 2 || strlen(argv[1]) >= sizeof(addr.sun_path))
		return 2;
	memcpy(addr.sun_path, argv[1], strlen(argv[1]));
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		perror(argv[1]);
		return 1;
	}
	client_run(plan, len, fd);
	return 0;
}
