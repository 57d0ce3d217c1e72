"""bindings.py NAME URI SOCKET: a check of the distribution's Python bindings, `import nbd`.

The server has 8 MiB, all commands and base:allocation; test_dropin_bindings.py runs each.
"""
import errno
import gc
import os
import select
import socket
import sys
import threading
import weakref

import nbd

SIZE = 8 << 20
CHECKS = {}


def check(function):
    CHECKS[function.__name__] = function
    return function


def connected(uri, *contexts):
    h = nbd.NBD()
    for name in contexts:
        h.add_meta_context(name)
    h.connect_uri(uri)
    return h


def fails(number, function, *arguments):
    """FUNCTION raises nbd.Error with errno NUMBER, or one of them: its text."""
    numbers = number if isinstance(number, tuple) else (number,)
    try:
        function(*arguments)
    except nbd.Error as e:
        assert e.errnum in numbers, (e.errnum, e.string)
        return e.string
    raise AssertionError('no error')


@check
def the_library_is_ours(uri, path):
    with open('/proc/self/maps') as maps:
        loaded = {line.split()[-1] for line in maps if 'libnbd.so' in line}
    assert {os.path.dirname(p) for p in loaded} == {os.environ['LD_LIBRARY_PATH']}, loaded


@check
def every_command(uri, path):
    h = connected(uri)
    data = os.urandom(65536)
    h.pwrite(data, 4096, nbd.CMD_FLAG_FUA)
    h.flush()
    assert h.pread(65536, 4096) == data
    h.zero(4096, 4096)
    h.zero(4096, 8192, nbd.CMD_FLAG_NO_HOLE)
    h.trim(4096, 12288, nbd.CMD_FLAG_FUA)
    h.cache(65536, 0)
    assert h.pread(8192, 4096) == bytes(8192) and h.pread(512, 16384) == data[12288:12800]
    h.shutdown()
    assert h.aio_is_closed()


@check
def what_the_export_is_like(uri, path):
    h = connected(uri)
    assert h.get_size() == SIZE and h.get_protocol() == 'newstyle-fixed'
    assert h.get_structured_replies_negotiated() and not h.get_tls_negotiated()
    assert h.can_flush() and h.can_fua() and h.can_trim() and h.can_zero() and h.can_df()
    assert h.can_multi_conn() and h.can_cache() and h.can_fast_zero()
    assert not h.is_read_only() and not h.is_rotational()
    assert h.get_uri() == uri and h.connection_state().startswith('READY')
    assert h.get_package_name() == 'libnbd' and h.get_version().startswith('1.')
    assert h.supports_uri() is True and h.get_export_name() == ''


@check
def options_by_hand(uri, path):
    h = nbd.NBD()
    h.set_opt_mode(True)
    h.set_full_info(True)
    h.connect_uri(uri)
    assert h.aio_is_negotiating()
    listed, contexts = [], []
    assert h.opt_list(lambda name, text: listed.append(name)) == len(listed) == 1
    h.add_meta_context('base:')
    h.opt_list_meta_context(contexts.append)
    assert contexts == ['base:allocation']
    h.clear_meta_contexts()
    h.add_meta_context('base:allocation')
    h.opt_info()
    assert h.get_size() == SIZE
    h.opt_go()
    assert h.aio_is_ready() and h.can_meta_context('base:allocation')
    other = nbd.NBD()
    other.set_opt_mode(True)
    other.connect_uri(uri)
    other.opt_abort()
    assert other.aio_is_closed()


@check
def many_reads_at_a_time(uri, path):
    h = connected(uri)
    data = os.urandom(1 << 20)
    h.pwrite(data, 0)
    buffers = [nbd.Buffer(4096) for _ in range(256)]
    done = []
    for i, b in enumerate(buffers):
        h.aio_pread(b, i * 4096, lambda error, i=i: done.append((i, error.value)) or 1)
    while h.aio_in_flight():
        h.poll(-1)
    assert sorted(done) == [(i, 0) for i in range(256)]
    assert b''.join(bytes(b.to_bytearray()) for b in buffers) == data


@check
def cookies(uri, path):
    h = connected(uri)
    b = nbd.Buffer(512)
    made = [h.aio_pread(b, i * 512) for i in range(32)]
    assert len(set(made)) == 32
    while h.aio_in_flight():
        h.poll(-1)
    left = set(made)
    while left:
        first = h.aio_peek_command_completed()
        assert first in left and h.aio_command_completed(first) is True
        left.remove(first)
        assert h.aio_command_completed(first) is False
    fails(errno.EINVAL, h.aio_peek_command_completed)


def step(h):
    direction = h.aio_get_direction()
    p = select.poll()
    p.register(h.aio_get_fd(), (select.POLLIN if direction & nbd.AIO_DIRECTION_READ else 0) |
               (select.POLLOUT if direction & nbd.AIO_DIRECTION_WRITE else 0))
    for _, events in p.poll(10000):
        if events & (select.POLLIN | select.POLLHUP):
            h.aio_notify_read()
        elif events & select.POLLOUT:
            h.aio_notify_write()


@check
def a_loop_of_ones_own(uri, path):
    h = nbd.NBD()
    h.aio_connect_uri(uri)
    while h.aio_is_connecting():
        step(h)
    assert h.aio_is_ready()
    big = nbd.Buffer.from_bytearray(bytearray(os.urandom(4 << 20)))
    back = nbd.Buffer(4 << 20)
    for cookie in (lambda: h.aio_pwrite(big, 0), lambda: h.aio_pread(back, 0)):
        c = cookie()
        while not h.aio_command_completed(c):
            step(h)
    assert back.to_bytearray() == big.to_bytearray()
    h.aio_disconnect()
    while not h.aio_is_closed():
        step(h)


@check
def reads_in_chunks(uri, path):
    h = connected(uri)
    h.pwrite(b'x' * 65536, 0)
    seen = []

    def chunk(data, offset, status, error):
        seen.append((offset, len(data), status))
        assert status != nbd.READ_DATA or bytes(data) == b'x' * len(data)
    assert h.pread_structured(65536, 0, chunk) == b'x' * 65536
    assert sum(length for _, length, _ in seen) == 65536

    def refuse(data, offset, status, error):
        error.value = errno.EDOM
        return -1
    fails(errno.EDOM, h.pread_structured, 512, 0, refuse)
    assert h.aio_is_ready()


@check
def status_of_blocks(uri, path):
    h = connected(uri, nbd.CONTEXT_BASE_ALLOCATION)
    h.zero(SIZE, 0)
    h.trim(SIZE, 0)
    h.pwrite(b'x' * 65536, 1 << 20)
    found = []
    h.block_status(SIZE, 0, lambda name, offset, entries, error: found.append(
        (name, offset, list(entries))))
    assert found == [('base:allocation', 0, [1 << 20, 3, 65536, 0, SIZE - (1 << 20) - 65536, 3])]
    fails(errno.ENOTSUP, connected(uri).block_status, 512, 0, lambda *a: 0)


@check
def errors(uri, path):
    h = nbd.NBD()
    assert fails(errno.ENOTCONN, h.pread, 512, 0).startswith('nbd_pread: ')
    fails(errno.EINVAL, h.set_tls, 9)
    fails(errno.ENAMETOOLONG, h.set_export_name, 'x' * 4097)
    h.connect_uri(uri)
    fails(errno.EINVAL, h.connect_uri, uri)
    fails(errno.EINVAL, h.opt_go)
    fails(errno.EINVAL, h.pread, 512, SIZE)
    fails(errno.ENOSPC, h.pwrite, bytes(512), SIZE - 511)
    fails(errno.EINVAL, h.pread, 0, 0)
    fails(errno.EINVAL, h.pread, 512, 0, 0x8000)
    fails(errno.EINVAL, h.aio_command_completed, 0)
    h.set_strict_mode(0)
    fails(errno.EINVAL, h.pread, 512, SIZE)         # the server's word
    assert h.aio_is_ready()
    fails(errno.ENOENT, nbd.NBD().connect_unix, '/nonexistent')


@check
def callbacks_are_freed(uri, path):
    class Callback:
        def __call__(self, *arguments):
            return 1
    h = connected(uri)
    for offset, works in ((0, True), (1 << 40, False)):
        c = Callback()
        weak = weakref.ref(c)
        if works:
            h.aio_pread(nbd.Buffer(512), offset, c)
            while h.aio_in_flight():
                h.poll(-1)
        else:
            fails(errno.EINVAL, h.aio_pread, nbd.Buffer(512), offset, c)
        del c
        gc.collect()
        assert weak() is None, works


@check
def debug_callback(uri, path):
    h, seen = nbd.NBD(), []
    h.set_handle_name('mine')
    h.set_debug(True)
    h.set_debug_callback(lambda context, message: seen.append((context, message)))
    h.connect_uri(uri)
    h.pread(512, 0)
    assert any(c == 'nbd_pread' and m.startswith('enter:') for c, m in seen)
    h.clear_debug_callback()
    h.set_debug(False)
    before = len(seen)
    h.pread(512, 0)
    assert len(seen) == before


@check
def threads(uri, path):
    wrong = []

    def work(k):
        try:
            h = connected(uri)
            for i in range(50):
                data = bytes([k]) * 4096
                h.pwrite(data, k * 4096)
                assert h.pread(4096, k * 4096) == data
                fails(errno.EINVAL, h.pread, 1, 1 << 50)
            h.shutdown()
        except Exception as e:                      # told below, by the main thread
            wrong.append(e)
    all_threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for t in all_threads:
        t.start()
    for t in all_threads:
        t.join()
    assert not wrong, wrong


@check
def ways_to_connect(uri, path):
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    h = nbd.NBD()
    h.connect_socket(sock.detach())
    assert h.get_size() == SIZE
    h = nbd.NBD()
    h.connect_unix(path)
    assert h.get_size() == SIZE
    h = nbd.NBD()
    h.connect_command(['nbdkit', '-s', '--exit-with-parent', 'memory', '1M'])
    assert h.get_size() == 1 << 20
    h.kill_subprocess(9)
    fails((errno.ENOTCONN, errno.ECONNRESET, errno.EPIPE), h.pread, 512, 0)
    h = nbd.NBD()
    h.connect_systemd_socket_activation(['nbdkit', '--exit-with-parent', 'memory', '3M'])
    assert h.get_size() == 3 << 20


if __name__ == '__main__':
    CHECKS[sys.argv[1]](*sys.argv[2:])
