"""The distribution's programs, unmodified, on this library: fio, nbdkit, nbdfuse."""
import json
import os
import shutil

import pytest

from tests.harness.servers import Nbdkit
from tests.harness.wait import wait_until
from tests.interop.dropin import OURS, SIZE, content, run, servers, sparse_file

FIO = ['fio', '--ioengine=nbd', '--thread', '--output-format=json', '--name=job']
JOBS = {
    'write-and-verify': ['--rw=randwrite', '--bs=4k', '--iodepth=32', '--size=8M',
                         '--verify=crc32c'],
    'deep': ['--rw=randrw', '--bs=4k', '--iodepth=256', '--size=16M', '--norandommap'],
    'big': ['--rw=rw', '--bs=1M', '--iodepth=4', '--size=16M'],
    'synchronous': ['--rw=randread', '--bs=512', '--iodepth=1', '--size=1M', '--io_size=256k'],
    'several': ['--rw=randrw', '--bs=16k', '--iodepth=16', '--size=4M', '--numjobs=4',
                '--offset_increment=4M', '--group_reporting'],
    'trim': ['--rw=randtrim', '--bs=64k', '--iodepth=16', '--size=8M'],
}


@pytest.mark.parametrize('job', JOBS)
def test_fio(host, job):
    with Nbdkit(host, ['memory', '16M']) as server:
        r = run([*FIO, f'--uri={server.uri}', *JOBS[job]], cwd=host.path)
    jobs = json.loads(r.stdout[r.stdout.index('{'):])['jobs']
    assert [j['error'] for j in jobs] == [0]
    assert sum(jobs[0][way]['total_ios'] for way in ('read', 'write', 'trim')) >= 16


def test_fio_tells_of_an_error(host):
    with Nbdkit(host, ['memory', '16M', 'error-rate=1'], options=['--filter=error']) as server:
        r = run([*FIO, f'--uri={server.uri}', *JOBS['big']], check=False, cwd=host.path)
    assert r.returncode != 0


class Relay(Nbdkit):
    """nbdkit whose nbd plugin is a client of another server, on our library."""

    def launch(self):
        env = {'LD_LIBRARY_PATH': OURS['LD_LIBRARY_PATH']}
        return self.machine.spawn(self.argv(), env=env)


def test_the_plugin_loads_our_library(host):
    with Nbdkit(host, ['memory', '1M']) as server, Relay(host, ['nbd', server.uri]) as relay:
        maps = host.read(f'/proc/{relay.pid}/maps')
    loaded = {line.split()[-1] for line in maps.splitlines() if 'libnbd.so' in line}
    assert {os.path.dirname(path) for path in loaded} == {OURS['LD_LIBRARY_PATH']}


@pytest.mark.parametrize('tcp', [False, True], ids=['unix', 'tcp'])
@pytest.mark.parametrize('options', [[], ['shared=true']], ids=['own', 'shared'])
def test_data_passes_through_the_plugin(host, tcp, options):
    image = sparse_file(host.path / 'image')
    with Nbdkit(host, ['memory', SIZE], tcp=tcp) as server, \
            Relay(host, ['nbd', server.uri, *options]) as relay:
        run(['nbdcopy', '-C', '4', image, relay.uri])
        run(['nbdcopy', relay.uri, host.path / 'back'])
        run(['nbdcopy', server.uri, host.path / 'direct'])
    assert (host.path / 'back').read_bytes() == content()
    assert (host.path / 'direct').read_bytes() == content()


def test_what_an_export_can_passes_through_the_plugin(host):
    for name, server in servers(host).items():
        if name in ('oldstyle', 'simple', 'names'):
            continue            # the plugin asks for structured replies on its own account
        with server, Relay(host, ['nbd', server.uri]) as relay:
            seen = [json.loads(run(['nbdinfo', '--json', s.uri]).stdout)['exports'][0]
                    for s in (server, relay)]
            for key in ('export-size', 'is_read_only', 'is_rotational', 'can_multi_conn',
                        'can_fua', 'can_trim'):
                assert seen[0].get(key) == seen[1].get(key), (name, key)


def test_holes_pass_through_the_plugin(host):
    image = sparse_file(host.path / 'image')
    with Nbdkit(host, ['file', image]) as server, Relay(host, ['nbd', server.uri]) as relay:
        maps = [run(['nbdinfo', '--map', s.uri]).stdout for s in (server, relay)]
    assert maps[0] == maps[1] and len(maps[0].splitlines()) > 3


def test_the_plugin_starts_a_server(host):
    command = ['nbd', 'command=nbdkit', *(f'arg={a}' for a in (
        '--exit-with-parent', 'memory', '7M'))]
    with Relay(host, command) as relay:
        assert run(['nbdinfo', '--size', relay.uri]).stdout == f'{7 << 20}\n'


def test_the_plugin_lists_the_exports(host):
    qemu = servers(host)['qemu']
    with qemu, Relay(host, ['nbd', f'socket={qemu.socket}', 'dynamic-export=true']) as relay:
        listed = json.loads(run(['nbdinfo', '--list', '--json', relay.uri]).stdout)
    assert [e['export-name'] for e in listed['exports']] == ['disk']


# ---------------------------------------------------------------- nbdfuse

@pytest.fixture
def fuse(host):
    """fuse(options, point, server…) mounts, and returns the point."""
    if not shutil.which('fusermount3', path=OURS['PATH']):
        pytest.skip('there is no fusermount3')
    try:
        os.close(os.open('/dev/fuse', os.O_RDWR))
    except OSError as e:
        pytest.skip(f'/dev/fuse cannot be used: {e.strerror}')
    mounted = []

    def mount(options, point, *server):
        p = host.spawn(['nbdfuse', *options, '-P', host.path / 'fuse.pid', point, *server],
                       env=OURS)

        def ready():
            if p.rc is not None and 'mount failed' in p.output:
                pytest.skip(f'nothing can be mounted here: {p.output}')
            if p.rc is not None:
                raise RuntimeError(p.output)
            return host.exists(host.path / 'fuse.pid')
        wait_until(ready, 10, 'nbdfuse to mount')
        mounted.append((point, p))
        return point
    yield mount
    for point, p in mounted:
        run(['fusermount3', '-u', point])
        p.wait()


def test_nbdfuse_makes_a_file_of_an_export(host, fuse):
    point = host.path / 'mnt'
    point.mkdir()
    with Nbdkit(host, ['memory', SIZE]) as server:
        file = fuse([], point, server.uri) / 'nbd'
        assert file.stat().st_size == SIZE
        data = content()
        with open(file, 'r+b') as f:
            f.write(data)
            os.fsync(f.fileno())
            f.seek(65519)
            assert f.read(70001) == data[65519:65519 + 70001]
        host.run(['fallocate', '-p', '-o', 0, '-l', 65536, file])
        assert file.read_bytes() == bytes(65536) + data[65536:]
        run(['nbdcopy', server.uri, host.path / 'copy'])
        assert (host.path / 'copy').read_bytes() == bytes(65536) + data[65536:]


def test_nbdfuse_shows_a_subprocess_read_only(host, fuse):
    point = host.path / 'disk'
    point.touch()
    fuse(['-r'], point, '[', 'nbdkit', '--exit-with-parent', 'pattern', '1M', ']')
    data = point.read_bytes()
    assert len(data) == 1 << 20 and data[8:16] == (8).to_bytes(8, 'big')
