/* nbdctl and nbd-client; and the daemon for an initramfs into which somebody else's script copied
 * nbd-client alone. */
#include <string.h>

#include "daemon/cli/cli.h"
#include "daemon/program.h"

int main(int argc, char **argv)
{
	if (argc && (strcmp(argv[0], "nbdd") == 0 || strcmp(argv[0], "@nbdd") == 0))
		return nbdd_main(argc, argv);
	return cli_main(argc, argv);
}
