#include "lib/api/call.h"

#include <stdlib.h>

int api_add_meta_context(struct nbd_handle *h, const char *name)
{
	if (strlen(name) > NAME_MAX_BYTES)
		return session_error(h, ENAMETOOLONG,
				     "meta context name too long for NBD protocol");
	if (meta_want(&h->meta, name) < 0)
		return session_error(h, ENOMEM, "no memory for a meta context");
	return 0;
}

ssize_t api_get_nr_meta_contexts(struct nbd_handle *h)
{
	return (ssize_t)h->meta.n_wanted;
}

char *api_get_meta_context(struct nbd_handle *h, size_t i)
{
	if (i < h->meta.n_wanted)
		return call_copy_string(h, h->meta.wanted[i]);
	session_error(h, EINVAL, "meta context request out of range");
	return NULL;
}

int api_clear_meta_contexts(struct nbd_handle *h)
{
	meta_want_nothing(&h->meta);
	return 0;
}

/* Copy the list QUERIES into the exchange. */
static int set_queries(struct nbd_handle *h, char **queries)
{
	char **copy;
	size_t n = 0;

	while (queries[n])
		if (strlen(queries[n++]) > NAME_MAX_BYTES)
			return session_error(h, ENAMETOOLONG,
					     "query too long for NBD protocol");
	copy = calloc(n + 1, sizeof(*copy));
	for (size_t i = 0; copy && i < n; i++) {
		copy[i] = strdup(queries[i]);
		if (!copy[i]) {
			queries_free(copy);
			copy = NULL;
		}
	}
	if (!copy)
		return session_error(h, ENOMEM, "no memory for queries");
	h->option.queries = copy;
	return 0;
}

/* QUERIES may be NULL for the contexts added. */
static int begin(struct nbd_handle *h, enum plan plan, char **queries,
		 nbd_context_callback *context, nbd_completion_callback *completion)
{
	/* "NBD_OPT_LIST_META_CONTEXT": must not be sent without structured replies. */
	if (!h->export.structured_replies)
		return session_error(h, ENOTSUP, "server lacks structured replies");
	if (queries && set_queries(h, queries) < 0)
		return -1;
	h->option.context = CALLBACK_TAKE(context);
	return call_begin_option(h, plan, completion);
}

static int run(struct nbd_handle *h, enum plan plan, char **queries,
	       nbd_context_callback *context)
{
	nbd_completion_callback none = NBD_NULL_COMPLETION;

	if (begin(h, plan, queries, context, &none) < 0 || call_wait_option(h) < 0)
		return -1;
	return (int)h->option.items;
}

int api_opt_list_meta_context(struct nbd_handle *h, nbd_context_callback *context)
{
	return run(h, PLAN_LIST_META_CONTEXT, NULL, context);
}

int api_opt_list_meta_context_queries(struct nbd_handle *h, char **queries,
				      nbd_context_callback *context)
{
	return run(h, PLAN_LIST_META_CONTEXT, queries, context);
}

int api_opt_set_meta_context(struct nbd_handle *h, nbd_context_callback *context)
{
	return run(h, PLAN_SET_META_CONTEXT, NULL, context);
}

int api_opt_set_meta_context_queries(struct nbd_handle *h, char **queries,
				     nbd_context_callback *context)
{
	return run(h, PLAN_SET_META_CONTEXT, queries, context);
}

int api_aio_opt_list_meta_context(struct nbd_handle *h, nbd_context_callback *context,
				  nbd_completion_callback *completion)
{
	return begin(h, PLAN_LIST_META_CONTEXT, NULL, context, completion);
}

int api_aio_opt_list_meta_context_queries(struct nbd_handle *h, char **queries,
					  nbd_context_callback *context,
					  nbd_completion_callback *completion)
{
	return begin(h, PLAN_LIST_META_CONTEXT, queries, context, completion);
}

int api_aio_opt_set_meta_context(struct nbd_handle *h, nbd_context_callback *context,
				 nbd_completion_callback *completion)
{
	return begin(h, PLAN_SET_META_CONTEXT, NULL, context, completion);
}

int api_aio_opt_set_meta_context_queries(struct nbd_handle *h, char **queries,
					 nbd_context_callback *context,
					 nbd_completion_callback *completion)
{
	return begin(h, PLAN_SET_META_CONTEXT, queries, context, completion);
}
