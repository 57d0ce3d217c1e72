#include "lib/api/call.h"

const char *api_get_error(void)
{
	return error_text();
}

int api_get_errno(void)
{
	return error_errno();
}
