#include "lib/api/call.h"

int api_set_debug(struct nbd_handle *h, bool debug)
{
	h->debug = debug;
	return 0;
}

int api_get_debug(struct nbd_handle *h)
{
	return h->debug;
}

int api_set_debug_callback(struct nbd_handle *h, nbd_debug_callback *callback)
{
	CALLBACK_FREE(h->debug_callback);
	h->debug_callback = CALLBACK_TAKE(callback);
	return 0;
}

int api_clear_debug_callback(struct nbd_handle *h)
{
	CALLBACK_FREE(h->debug_callback);
	return 0;
}

uint64_t api_stats_bytes_sent(struct nbd_handle *h)
{
	return h->stats.bytes_sent;
}

uint64_t api_stats_chunks_sent(struct nbd_handle *h)
{
	return h->stats.chunks_sent;
}

uint64_t api_stats_bytes_received(struct nbd_handle *h)
{
	return h->stats.bytes_received;
}

uint64_t api_stats_chunks_received(struct nbd_handle *h)
{
	return h->stats.chunks_received;
}
