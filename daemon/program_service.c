/* `nbdd --serve=programs`: runs programs for an nbdd that is not root. */
#include "daemon/manager.h"
#include "daemon/programs.h"
#include "daemon/service.h"

int program_serve(const struct manager_options *o)
{
	struct service s;

	return service_open(&s);
}
