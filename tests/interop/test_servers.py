"""The library against real servers: nbdkit, qemu-nbd and nbd-server, each over TCP and a Unix
socket, with and without structured replies."""
import errno
import os
import random

import pytest

from tests.harness.nbd_ctypes import (CHUNK, CONTEXT, EXTENT, Callback, Handle, NbdError,
                                      buffer, completion)
from tests.harness.servers import Nbdkit, NbdServer, QemuNbd

SIZE = 4 << 20
CONTENT = random.Random(1).randbytes(SIZE)


def image(host):
    path = host.path / f'image{random.getrandbits(32)}'
    path.write_bytes(CONTENT)
    return path


def qcow2(host):
    path = host.path / 'image.qcow2'
    host.run(['qemu-img', 'convert', '-O', 'qcow2', image(host), path])
    return path


def nbdkit_file(host, **at):
    return Nbdkit(host, ['file', image(host)], **at)


def nbdkit_old(host, **at):
    return Nbdkit(host, ['file', image(host)], options=['-o'], **at)


def nbdkit_simple(host, **at):
    return Nbdkit(host, ['file', image(host)], options=['--no-sr'], **at)


def qemu_raw(host, **at):
    return QemuNbd(host, image(host), **at)


def qemu_qcow2(host, **at):
    return QemuNbd(host, qcow2(host), format='qcow2', **at)


def nbd_server(host, **at):
    keys = {'exportname': image(host), 'flush': 'true', 'fua': 'true', 'trim': 'true'}
    return NbdServer(host, {'disk': keys}, **at)


SERVERS = {f.__name__: f for f in (nbdkit_file, nbdkit_old, nbdkit_simple, qemu_raw,
                                   qemu_qcow2, nbd_server)}
FIXED = [n for n in SERVERS if n != 'nbdkit_old']


# nbdkit 1.32 advertises FLUSH and FUA on oldstyle connections and then refuses both.
@pytest.fixture(params=FIXED)
def any_server(request, host):
    with SERVERS[request.param](host) as server:
        yield server


@pytest.fixture
def start(host):
    started = []

    def make(name, **at):
        started.append(SERVERS[name](host, **at).start())
        return started[-1]
    yield make
    for server in started:
        server.close()


def connected(server, meta=(), **settings):
    h = Handle()
    for name in meta:
        h.add_meta_context(name)
    for name, value in settings.items():
        h.call('set_' + name, value)
    h.connect_uri(server.uri)
    return h


def read_all(h, step=1 << 18):
    return b''.join(h.read(at, min(step, SIZE - at)) for at in range(0, SIZE, step))


@pytest.mark.parametrize('structured', [False, True])
@pytest.mark.parametrize('tcp', [False, True], ids=['unix', 'tcp'])
@pytest.mark.parametrize('name', SERVERS)
def test_everything_is_read_as_it_is(start, name, tcp, structured):
    with connected(start(name, tcp=tcp), request_structured_replies=structured) as h:
        assert h.get_size() == SIZE
        assert read_all(h) == CONTENT
        h.shutdown(0)


@pytest.mark.parametrize('name, protocol', [
    (n, 'oldstyle' if n == 'nbdkit_old' else 'newstyle-fixed') for n in SERVERS])
def test_protocol_is_told(start, name, protocol):
    with connected(start(name)) as h:
        assert h.get_protocol() == protocol


def test_what_is_written_is_there_for_the_next_connection(any_server):
    data = random.Random(2).randbytes(300_000)
    with connected(any_server) as h:
        h.write(12_288, data)
        h.flush(0) if h.can_flush() else None
        h.shutdown(0)
    with connected(any_server) as h:
        assert h.read(12_288, len(data)) == data
        assert h.read(0, 12_288) == CONTENT[:12_288]


def test_many_commands_in_flight(any_server):
    """Random reads and writes of disjoint places, checked against a model."""
    place, count = 16384, SIZE // 16384
    rng = random.Random(3)
    model = bytearray(CONTENT)
    with connected(any_server) as h:
        for _ in range(4):
            kept, failed = [], []

            def done(error, failed=failed):
                failed.append(error[0])
                return 1
            for n in rng.sample(range(count), count // 2):
                if rng.random() < 0.5:
                    data = rng.randbytes(place)
                    model[n * place:(n + 1) * place] = data
                    block = buffer(data)
                    h.aio_pwrite(block, place, n * place, completion(done), 0)
                    kept.append((block, None))
                else:
                    block = buffer(place)
                    h.aio_pread(block, place, n * place, completion(done), 0)
                    kept.append((block, bytes(model[n * place:(n + 1) * place])))
            h.poll_until(lambda: h.aio_in_flight() == 0, timeout=60)
            assert set(failed) == {0}
            assert all(want is None or block.raw == want for block, want in kept)
        assert read_all(h) == bytes(model)
        h.shutdown(0)


def test_every_advertised_command_works(any_server):
    with connected(any_server) as h:
        h.write(0, b'x' * 8192, 1 if h.can_fua() else 0)
        if h.can_zero():
            h.zero(4096, 0, 0)
            assert h.read(0, 8192) == bytes(4096) + b'x' * 4096
            h.zero(4096, 0, 2)                          # NO_HOLE
            if h.can_fast_zero():
                try:
                    h.zero(4096, 4096, 16)
                except NbdError as e:
                    assert e.errno == errno.ENOTSUP
        if h.can_trim():
            h.trim(4096, 8192, 0)
            assert len(h.read(8192, 4096)) == 4096
        if h.can_cache():
            h.cache(65536, 0, 0)
        if h.can_flush():
            h.flush(0)
        assert h.aio_is_ready()
        h.shutdown(0)


@pytest.mark.parametrize('name, expected', [
    ('nbdkit_file', {'can_flush', 'can_fua', 'can_trim', 'can_zero', 'can_multi_conn',
                     'can_df'}),
    ('qemu_raw', {'can_flush', 'can_fua', 'can_trim', 'can_zero', 'can_cache', 'can_df'}),
    ('nbd_server', {'can_flush', 'can_fua', 'can_trim'})])
def test_what_the_server_can_do_is_told(start, name, expected):
    with connected(start(name)) as h:
        assert all(h.call(query) == 1 for query in expected)
        assert h.is_read_only() == 0


@pytest.mark.parametrize('strict', [0, 0x1F])
def test_out_of_bounds_is_an_error_and_the_connection_stays(any_server, strict):
    with connected(any_server, strict_mode=strict) as h:
        with pytest.raises(NbdError):
            h.read(SIZE, 512)
        assert h.read(0, 512) == CONTENT[:512]


@pytest.mark.parametrize('make', [
    lambda host: Nbdkit(host, ['file', image(host)], options=['-r']),
    lambda host: QemuNbd(host, image(host), options=['-r']),
    lambda host: NbdServer(host, {'disk': {'exportname': image(host), 'readonly': 'true'}})],
    ids=['nbdkit', 'qemu-nbd', 'nbd-server'])
def test_read_only_export(host, make):
    with make(host) as server, connected(server) as h:
        assert h.is_read_only() == 1
        with pytest.raises(NbdError) as e:
            h.write(0, b'x')
        assert e.value.errno == errno.EPERM
        assert h.read(0, 512) == CONTENT[:512]


# Options ----------------------------------------------------------------------------------

@pytest.mark.parametrize('name', FIXED)
def test_export_is_found_in_the_list_and_by_info(start, name):
    server = start(name)
    with connected(server, opt_mode=True) as h:
        names = [n for n, _ in h.list()]
        assert server.export in names
        h.opt_info()
        if name != 'nbd_server':        # which tells no size before GO
            assert h.get_size() == SIZE
        h.opt_go()
        assert h.get_size() == SIZE
        assert h.read(0, 512) == CONTENT[:512]
        h.shutdown(0)


@pytest.mark.parametrize('name', FIXED)
def test_negotiation_can_be_left(start, name):
    server = start(name)
    with connected(server, opt_mode=True) as h:
        h.opt_abort()
        assert h.aio_is_closed()
    with connected(server) as h:
        assert h.read(0, 8) == CONTENT[:8]


@pytest.mark.parametrize('name', ['qemu_raw', 'nbd_server'])
def test_unknown_export_is_enoent_or_a_refusal(start, name):
    server = start(name)
    server.export = 'missing'
    with pytest.raises(NbdError) as e:
        connected(server)
    assert 'nbd_connect_uri: ' in e.value.text
    if name == 'qemu_raw':
        assert e.value.errno == errno.ENOENT


def test_several_exports_with_descriptions(host):
    with QemuNbd(host, image(host), export='disk one',
                 options=['-D', 'a description']) as server, \
            connected(server, opt_mode=True) as h:
        assert h.list() == [('disk one', 'a description')]


def test_forbidden_list_leaves_the_export_reachable(host):
    exports = {'disk': {'exportname': image(host)}}
    with NbdServer(host, exports, generic={'allowlist': 'false'}) as server, \
            connected(server, opt_mode=True) as h:
        with pytest.raises(NbdError):
            h.list()
        h.opt_go()
        assert h.read(0, 8) == CONTENT[:8]


def test_block_sizes_of_qemu(start):
    with connected(start('qemu_qcow2')) as h:
        minimum, preferred, maximum = (h.get_block_size(i) for i in range(3))
        assert minimum == 1 and preferred >= 4096 and maximum == 32 << 20


def test_block_sizes_of_nbdkit(host):
    options = ['--filter=blocksize-policy']
    plugin = ['file', image(host), 'blocksize-minimum=4096', 'blocksize-preferred=8192',
              'blocksize-maximum=1M', 'blocksize-error-policy=error']
    with Nbdkit(host, plugin, options=options) as server, connected(server) as h:
        assert [h.get_block_size(i) for i in range(3)] == [4096, 8192, 1 << 20]
        with pytest.raises(NbdError) as e:
            h.read(512, 512)
        assert e.value.errno == errno.EINVAL
        assert h.read(4096, 4096) == CONTENT[4096:8192]


# Block status -----------------------------------------------------------------------------

def extents(h, count, offset=0):
    seen = Callback(EXTENT)
    h.block_status(count, offset, seen, 0)
    assert seen.sound
    return {name.decode(): found for name, _, found, _ in seen.calls}


def whole_map(h, context):
    """[(length, flags)] of the whole export, neighbours with equal flags joined."""
    found, at = [], 0
    while at < SIZE:
        for length, flags in extents(h, SIZE - at, at)[context]:
            if found and found[-1][1] == flags:
                found[-1] = (found[-1][0] + length, flags)
            else:
                found.append((length, flags))
            at += length
    return found


@pytest.mark.parametrize('kind', ['nbdkit', 'qemu'])
def test_holes_of_a_sparse_file_are_told(host, kind):
    path = host.path / 'sparse'
    with open(path, 'wb') as f:
        f.truncate(SIZE)
        f.seek(1 << 20)
        f.write(os.urandom(65536))
    server = Nbdkit(host, ['file', path]) if kind == 'nbdkit' else QemuNbd(host, path)
    with server, connected(server, meta=['base:allocation']) as h:
        assert h.can_meta_context('base:allocation') == 1
        assert whole_map(h, 'base:allocation') == [
            (1 << 20, 3), (65536, 0), (SIZE - (1 << 20) - 65536, 3)]


def test_dirty_bitmap_and_depth_of_qemu(host):
    path = qcow2(host)
    host.run(['qemu-img', 'bitmap', '--add', '--enable', '-f', 'qcow2', path, 'changes'])
    host.run(['qemu-io', '-f', 'qcow2', '-c', 'write -P 1 128k 64k', path])
    bitmap, depth = 'qemu:dirty-bitmap:changes', 'qemu:allocation-depth'
    with QemuNbd(host, path, format='qcow2', options=['-B', 'changes', '-A']) as server, \
            connected(server, meta=[bitmap, depth, 'base:allocation']) as h:
        assert set(extents(h, 65536)) == {bitmap, depth, 'base:allocation'}
        assert whole_map(h, bitmap) == [(131072, 0), (65536, 1), (SIZE - 196608, 0)]


def test_contexts_of_qemu_are_listed(start):
    with connected(start('qemu_raw'), opt_mode=True) as h:
        found = Callback(CONTEXT)
        assert h.opt_list_meta_context(found) >= 1
        assert b'base:allocation' in found.calls


def test_reads_in_chunks_of_holes_and_data(host):
    """qemu-nbd sends holes of a sparse file as such."""
    path = host.path / 'sparse'
    with open(path, 'wb') as f:
        f.truncate(SIZE)
        f.seek(1 << 20)
        f.write(b'd' * 65536)
    with QemuNbd(host, path) as server, connected(server) as h:
        seen, block = Callback(CHUNK), buffer(b'\xff' * (2 << 20))
        h.pread_structured(block, 2 << 20, 0, seen, 0)
        assert {status for _, _, status, _ in seen.calls} == {1, 2}
        want = bytearray(2 << 20)
        want[1 << 20:(1 << 20) + 65536] = b'd' * 65536
        assert block.raw == want


# Trouble ----------------------------------------------------------------------------------

@pytest.mark.parametrize('name', FIXED)
def test_killed_server_is_an_error_for_all_in_flight(start, name):
    server = start(name)
    with connected(server) as h:
        server.kill()
        callbacks = []
        with pytest.raises(NbdError):
            for _ in range(5):
                callbacks.append(completion(lambda error: 1))
                h.aio_pread(buffer(512), 512, 0, callbacks[-1], 0)
            h.poll_until(lambda: h.aio_in_flight() == 0)
        assert h.state() in ('DEAD', 'CLOSED')
        assert all(cb.sound for cb in callbacks)


def test_errors_of_the_server_are_told(host):
    plugin = ['memory', '1M', 'error-pread=ENOSPC', 'error-pread-rate=100%']
    with Nbdkit(host, plugin, options=['--filter=error']) as server, connected(server) as h:
        with pytest.raises(NbdError) as e:
            h.read(0, 512)
        assert e.value.errno == errno.ENOSPC
        h.write(0, b'x')


def test_slow_server_is_waited_for(host):
    plugin = ['memory', '1M', 'rdelay=500ms']
    with Nbdkit(host, plugin, options=['--filter=delay']) as server, connected(server) as h:
        done = completion(lambda error: 1)
        h.aio_pread(buffer(512), 512, 0, done, 0)
        assert h.poll(50) in (0, 1) and not done.calls
        h.poll_until(lambda: done.calls)
        assert done.calls == [0]
