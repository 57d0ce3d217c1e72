#include "tests/unit/unit.h"

struct unit_test unit_tests[UNIT_TESTS_MAX];
size_t n_unit_tests;

static int run(const char *name)
{
	int found = 0;

	for (size_t i = 0; i < n_unit_tests; i++)
		if (!name || strcmp(unit_tests[i].name, name) == 0) {
			unit_tests[i].run();
			found++;
		}
	if (!found)
		fprintf(stderr, "there is no test %s\n", name ? name : "at all");
	return found ? 0 : 1;
}

int main(int argc, char **argv)
{
	int status = argc > 1 ? 0 : run(NULL);

	for (int i = 1; i < argc; i++)
		status |= run(argv[i]);
	return status;
}
