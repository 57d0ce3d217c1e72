/* The groups of calls that groups_io.c makes; each connects to SOCKET_PATH by itself. */
#pragma once

void option_group(const char *socket_path);
void command_group(const char *socket_path);
void aio_group(const char *socket_path);
