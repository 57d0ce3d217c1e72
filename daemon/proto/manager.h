/* The interface of the control socket: its names. */
#pragma once

#define MANAGER_INTERFACE	"io.nbdd.Manager"
#define MANAGER_SOCKET		"control"	/* in the runtime directory */
#define MANAGER_ERROR(name)	MANAGER_INTERFACE "." name

/* The interface's definition, made from io.nbdd.Manager.varlink. */
extern const char io_nbdd_Manager_varlink[];
