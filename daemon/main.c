/* The daemon alone, which locks in memory what it is made of. */
#include "daemon/program.h"

int main(int argc, char **argv)
{
	return nbdd_main(argc, argv);
}
