/* What is asked of the driver: connect, reconnect, resize, disconnect, status. */
#include <errno.h>
#include <linux/nbd.h>
#include <string.h>

#include "netlink/genl.h"

static bool identifier_fits(const char *identifier)
{
	return identifier && *identifier && strlen(identifier) <= NBDK_IDENTIFIER_MAX;
}

static int put_socket(struct nl_msg *msg, int fd)
{
	struct nlattr *item = nla_nest_start(msg, NBD_SOCK_ITEM);

	if (!item || nla_put_u32(msg, NBD_SOCK_FD, (uint32_t)fd) < 0)
		return -EMSGSIZE;
	nla_nest_end(msg, item);
	return 0;
}

static int put_sockets(struct genl *g, const int *fds, size_t n)
{
	struct nlattr *list;
	int r = 0;

	if (n == 0 || n > NBDK_SOCKETS_MAX)
		return -EINVAL;
	list = nla_nest_start(g->msg, NBD_ATTR_SOCKETS);
	if (!list)
		return -EMSGSIZE;
	for (size_t i = 0; r == 0 && i < n; i++)
		r = put_socket(g->msg, fds[i]);
	if (r == 0)
		nla_nest_end(g->msg, list);
	return r;
}

struct number {
	int type;
	uint64_t value;
};

static int put_numbers(struct genl *g, const struct number *numbers, size_t n)
{
	int r = 0;

	for (size_t i = 0; r == 0 && i < n; i++)
		r = genl_put_u64(g, numbers[i].type, numbers[i].value);
	return r;
}

static int begin_device(struct genl *g, uint8_t command, unsigned index)
{
	if (index > NBDK_INDEX_MAX)
		return -EINVAL;
	genl_begin(g, command);
	return genl_put_u32(g, NBD_ATTR_INDEX, index);
}

static int take_index(struct nlattr **attrs, void *userdata)
{
	int64_t *index = userdata;

	if (!attrs[NBD_ATTR_INDEX])
		return -EBADMSG;
	*index = nla_get_u32(attrs[NBD_ATTR_INDEX]);
	return 0;
}

static int connect_request(struct genl *g, const struct nbdk_connect *c)
{
	/* TIMEOUT and DEAD_CONN_TIMEOUT stay from the device's earlier life unless sent,
	 * a missing block size becomes 1024, and CLIENT_FLAGS clear what an earlier owner
	 * may have set (destroy on disconnect): so all of them always, 0 included. */
	const struct number numbers[] = {
		{ NBD_ATTR_SIZE_BYTES, c->size },
		{ NBD_ATTR_BLOCK_SIZE_BYTES, c->block_size },
		{ NBD_ATTR_SERVER_FLAGS, c->server_flags },
		{ NBD_ATTR_CLIENT_FLAGS, 0 },
		{ NBD_ATTR_TIMEOUT, c->timeout_sec },
		{ NBD_ATTR_DEAD_CONN_TIMEOUT, c->dead_conn_timeout_sec },
	};
	int r;

	genl_begin(g, NBD_CMD_CONNECT);
	if (c->index != NBDK_INDEX_ANY) {
		r = genl_put_u32(g, NBD_ATTR_INDEX, (uint32_t)c->index);
		if (r < 0)
			return r;
	}
	r = put_numbers(g, numbers, ARRAY_SIZE(numbers));
	if (r == 0)
		r = genl_put_string(g, NBD_ATTR_BACKEND_IDENTIFIER, c->identifier);
	if (r == 0)
		r = put_sockets(g, c->sockets, c->n_sockets);
	return r;
}

/* -EBUSY says that the index is in use *or merely open*: udev opens a device for a moment
 * after each change, so the caller tries again before it believes it (observed, 6.1). */
static int do_connect(struct nbdk *k, const struct nbdk_connect *c, unsigned *ret_index)
{
	int64_t index = c->index;
	int r;

	/* An empty device would be accepted by later kernels and serves nobody. */
	if (!identifier_fits(c->identifier) || c->size == 0 ||
	    (c->index != NBDK_INDEX_ANY && (unsigned)c->index > NBDK_INDEX_MAX))
		return -EINVAL;
	r = connect_request(&k->genl, c);
	if (r < 0)
		return r;
	r = genl_call(&k->genl, take_index, &index);
	if (r < 0)
		return r;
	if (index < 0 || index > NBDK_INDEX_MAX)
		return -EBADMSG;
	*ret_index = (unsigned)index;
	return 0;
}

/* What the driver does without a word (observed, 6.1):
 * - with no dead link, or more sockets than dead links, it returns 0 and drops what is left
 *   over: success does not prove that the sockets are in use, so the old link must be seen
 *   dead first (the event, or shutdown(2) on a duplicate of its socket);
 * - server flags stay as they were at connect;
 * - TIMEOUT writes queue/io_timeout, 30 s for 0, and with it goes the short interval at
 *   which requests in flight look for a replaced socket.  To write it again here could
 *   block: newer kernels freeze the queue for it, and the new link may die meanwhile.  So
 *   TIMEOUT is left out, since it stays within one life of the device, unless it changes. */
static int reconfigure_request(struct genl *g, const struct nbdk_reconnect *c)
{
	int r;

	if (!identifier_fits(c->identifier))
		return -EINVAL;
	r = begin_device(g, NBD_CMD_RECONFIGURE, c->index);
	if (r == 0 && c->timeout_sec != 0)
		r = genl_put_u64(g, NBD_ATTR_TIMEOUT,
				 c->timeout_sec == NBDK_TIMEOUT_OFF ? 0 : c->timeout_sec);
	if (r == 0)
		r = genl_put_u64(g, NBD_ATTR_DEAD_CONN_TIMEOUT, c->dead_conn_timeout_sec);
	/* The driver compares it with the one of CONNECT: no match, or none, is EINVAL. */
	if (r == 0)
		r = genl_put_string(g, NBD_ATTR_BACKEND_IDENTIFIER, c->identifier);
	return r;
}

static int do_reconnect(struct nbdk *k, const struct nbdk_reconnect *c)
{
	struct genl *g = &k->genl;
	int r = reconfigure_request(g, c);

	/* No SIZE_BYTES and no BLOCK_SIZE_BYTES: a resize freezes the queue, and the
	 * driver resizes before it takes the sockets, so that with dead links the freeze
	 * would wait for requests that wait for the sockets. */
	if (r == 0)
		r = put_sockets(g, c->sockets, c->n_sockets);
	return r < 0 ? r : genl_call(g, NULL, NULL);
}

static int do_configure(struct nbdk *k, const struct nbdk_reconnect *c)
{
	int r = reconfigure_request(&k->genl, c);

	return r < 0 ? r : genl_call(&k->genl, NULL, NULL);
}

/* One setting of a device that is connected under IDENTIFIER. */
static int set_one(struct nbdk *k, unsigned index, const char *identifier, int attribute,
		   uint64_t value)
{
	struct genl *g = &k->genl;
	int r;

	if (!identifier_fits(identifier))
		return -EINVAL;
	r = begin_device(g, NBD_CMD_RECONFIGURE, index);
	if (r == 0)
		r = genl_put_u64(g, attribute, value);
	if (r == 0)
		r = genl_put_string(g, NBD_ATTR_BACKEND_IDENTIFIER, identifier);
	return r < 0 ? r : genl_call(g, NULL, NULL);
}

static int do_resize(struct nbdk *k, unsigned index, const char *identifier, uint64_t size)
{
	/* The driver takes size 0 and leaves an empty device under a mounted file system. */
	if (size == 0)
		return -EINVAL;
	return set_one(k, index, identifier, NBD_ATTR_SIZE_BYTES, size);
}

/* The driver looks, with no open or close between, whether the close was the last one. */
static int do_last_close(struct nbdk *k, unsigned index, const char *identifier,
			 bool disconnects)
{
	return set_one(k, index, identifier, NBD_ATTR_CLIENT_FLAGS,
		       disconnects ? NBD_CFLAG_DISCONNECT_ON_CLOSE : 0);
}

static int do_disconnect(struct nbdk *k, unsigned index)
{
	int r = begin_device(&k->genl, NBD_CMD_DISCONNECT, index);

	return r < 0 ? r : genl_call(&k->genl, NULL, NULL);
}

struct status {
	unsigned index;
	int connected;		/* -1: the driver did not name the device */
};

static int take_status(struct nlattr **attrs, void *userdata)
{
	static const struct nla_policy policy[NBD_DEVICE_ATTR_MAX + 1] = {
		[NBD_DEVICE_INDEX] = { .type = NLA_U32 },
		[NBD_DEVICE_CONNECTED] = { .type = NLA_U8 },
	};
	struct status *status = userdata;
	struct nlattr *item;
	int left;

	if (!attrs[NBD_ATTR_DEVICE_LIST])
		return -EBADMSG;
	nla_for_each_nested(item, attrs[NBD_ATTR_DEVICE_LIST], left) {
		struct nlattr *tb[NBD_DEVICE_ATTR_MAX + 1];

		if (nla_parse_nested(tb, NBD_DEVICE_ATTR_MAX, item, policy) < 0 ||
		    !tb[NBD_DEVICE_INDEX] || !tb[NBD_DEVICE_CONNECTED])
			return -EBADMSG;
		if (nla_get_u32(tb[NBD_DEVICE_INDEX]) == status->index)
			status->connected = nla_get_u8(tb[NBD_DEVICE_CONNECTED]);
	}
	return 0;
}

static int do_status(struct nbdk *k, unsigned index, bool *ret_connected)
{
	struct status status = { index, -1 };
	int r = begin_device(&k->genl, NBD_CMD_STATUS, index);

	if (r < 0)
		return r;
	r = genl_call(&k->genl, take_status, &status);
	if (r < 0)
		return r;
	if (status.connected < 0)
		return -ENODEV;
	*ret_connected = status.connected > 0;
	return 0;
}

const struct nbdk_ops nbdk_kernel_ops = {
	.connect = do_connect,
	.reconnect = do_reconnect,
	.configure = do_configure,
	.resize = do_resize,
	.last_close = do_last_close,
	.disconnect = do_disconnect,
	.status = do_status,
};
