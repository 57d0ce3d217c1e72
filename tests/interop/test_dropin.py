"""The distribution's programs, unmodified, on this library: nbdinfo and nbdcopy."""
import json
import re

import pytest

from tests.harness.paths import BUILD
from tests.harness.proc import Host
from tests.harness.servers import Nbdkit
from tests.interop.dropin import (BOTH, OURS, SIZE, THEIRS, content, run, servers, sparse_file)

PROGRAMS = ['nbdinfo', 'nbdcopy', 'nbdfuse', 'fio']


@pytest.fixture(scope='module')
def machine():
    with Host() as host:
        yield host


@pytest.fixture(scope='module')
def server(machine):
    """server(NAME): one of dropin.servers, started when it is first asked for."""
    all_servers = servers(machine)
    yield lambda name: (all_servers[name] if all_servers[name].process
                        else all_servers[name].start())
    for s in all_servers.values():
        if s.process:
            s.close()


@pytest.mark.parametrize('program', PROGRAMS)
def test_our_library_is_what_the_program_loads(program):
    loaded = [line.split()[2] for line in run(['ldd', f'/usr/bin/{program}']).stdout.splitlines()
              if 'libnbd.so.0' in line]
    assert loaded == [str(BUILD / 'libnbd.so.0')]
    # All of its symbols are there, with their versions: ld.so says nothing.
    r = run([program, '--version'], {**OURS, 'LD_BIND_NOW': '1'})
    assert r.stderr == ''


# ---------------------------------------------------------------- nbdinfo

CAN = ['cache', 'connect', 'df', 'fast-zero', 'flush', 'fua', 'multi-conn', 'read', 'trim',
       'write', 'zero', 'structured-reply']
IS = ['read-only', 'rotational', 'tls', 'structured-reply']
SAME = [(name, mode) for name in ('memory', 'tcp', 'sparse', 'read-only', 'sizes', 'simple', 'qemu')
        for mode in ([], ['--json'], ['--size'], ['--map'], ['--map', '--json'],
                     ['--map', '--totals'], ['--list'])]
SAME += [('names', mode) for mode in (['--list'], ['--list', '--json'])]
SAME += [('oldstyle', mode) for mode in ([], ['--json'], ['--size'])]
SAME += [('qemu', mode) for mode in (
    ['--map=qemu:dirty-bitmap:dirty'], ['--map=qemu:allocation-depth', '--json'],
    ['--map=qemu:dirty-bitmap:none'], ['--list', '--json'])]


@pytest.mark.parametrize('name, mode', SAME, ids=lambda v: v if isinstance(v, str) else ' '.join(v))
def test_nbdinfo_prints_what_it_prints_on_the_distributions_library(server, name, mode):
    ours, theirs = (run(['nbdinfo', *mode, server(name).uri], env, check=False)
                    for env in (OURS, THEIRS))
    assert (ours.returncode, ours.stdout) == (theirs.returncode, theirs.stdout)
    assert ours.stdout if ours.returncode == 0 else ours.stderr == theirs.stderr != ''


@pytest.mark.parametrize('name', ['memory', 'read-only', 'rotational', 'simple', 'qemu'])
def test_nbdinfo_answers_every_question_as_on_the_distributions_library(server, name):
    uri = server(name).uri
    # The server of a rotational disk is a shell script, and slow.
    questions = [('--is', IS)] if name == 'rotational' else [('--can', CAN), ('--is', IS)]
    for option, words in questions:
        for word in words:
            statuses = [run(['nbdinfo', option, word, uri], env, check=False).returncode
                        for env in BOTH.values()]
            assert statuses[0] == statuses[1], (option, word)


def test_nbdinfo_tells_the_truth(server):
    export = json.loads(run(['nbdinfo', '--json', server('qemu').uri]).stdout)['exports'][0]
    assert export['export-size'] == 1 << 20 and export['description'] == 'a disk'
    assert 'qemu:dirty-bitmap:dirty' in export['contexts']
    lines = run(['nbdinfo', '--map', server('sparse').uri]).stdout.splitlines()
    assert [line.split()[:3] for line in lines[:3]] == [
        ['0', '262144', '0'], ['262144', '262144', '3'], ['524288', '524288', '0']]
    sizes = json.loads(run(['nbdinfo', '--json', server('sizes').uri]).stdout)['exports'][0]
    assert [sizes[f'block_size_{k}'] for k in ('minimum', 'preferred', 'maximum')] == [
        4096, 65536, 1 << 20]


@pytest.mark.parametrize('command, size', [
    (['nbdkit', '--exit-with-parent', 'memory', '5M'], 5 << 20),
    (['qemu-nbd', '-r', '-f', 'raw', 'sparse'], SIZE)], ids=['nbdkit', 'qemu-nbd'])
def test_nbdinfo_starts_a_server(machine, command, size):
    sparse_file(machine.path / 'sparse')
    r = run(['nbdinfo', '--size', '--', '[', *command, ']'], cwd=machine.path)
    assert r.stdout == f'{size}\n'


@pytest.mark.parametrize('uri, message', [
    ('nbd+unix:///?socket=/nonexistent', 'nbd_connect_uri: connect: .*No such file'),
    ('nbd://127.0.0.1:1', 'nbd_connect_uri: .*Connection refused'),
    ('http://x/', 'nbd_connect_uri: .*scheme'),
    ('nbd://localhost/?socket=/x', 'nbd_connect_uri: '),
])
def test_nbdinfo_tells_what_is_wrong(uri, message):
    r = run(['nbdinfo', uri], check=False)
    assert r.returncode == 1 and r.stdout == ''
    assert re.search(message, r.stderr)


def test_nbdinfo_tells_of_an_unknown_export(server):
    uri = server('qemu').uri.replace('/disk', '/none')
    ours, theirs = (run(['nbdinfo', uri], env, check=False) for env in (OURS, THEIRS))
    assert ours.returncode == theirs.returncode == 1
    assert 'nbd_' in ours.stderr and 'none' in ours.stderr


# ---------------------------------------------------------------- nbdcopy

COPY_OPTIONS = [
    [], ['--synchronous'], ['--no-extents'], ['--allocated'], ['--sparse=0'],
    ['-C', '4', '-T', '4'], ['-C', '1', '-R', '1'], ['-R', '256', '--request-size=4096'],
    ['--request-size=1048576'], ['--request-size=33554432', '-R', '2'],
    ['--queue-size=1048576'], ['--flush', '--destination-is-zero'],
]


@pytest.fixture
def image(host):
    return sparse_file(host.path / 'image')


@pytest.mark.parametrize('options', COPY_OPTIONS, ids=' '.join)
def test_nbdcopy_takes_every_byte_from_a_server_and_to_one(host, image, options):
    data = content()
    with Nbdkit(host, ['file', image]) as source, Nbdkit(host, ['memory', SIZE]) as target:
        copy = ['nbdcopy', *options]
        out = [host.path / name for name in ('down', 'round')]
        run([*copy, source.uri, out[0]])
        assert out[0].read_bytes() == data
        run([*copy, image, target.uri])
        run([*copy, target.uri, out[1]])
        assert out[1].read_bytes() == data


@pytest.mark.parametrize('options', [[], ['--synchronous'], ['-C', '4', '--request-size=65536']],
                         ids=' '.join)
def test_nbdcopy_between_servers(host, image, options):
    target = host.path / 'target'
    target.write_bytes(b'\xff' * SIZE)
    with Nbdkit(host, ['file', image]) as a, Nbdkit(host, ['file', target], tcp=True) as b:
        run(['nbdcopy', *options, a.uri, b.uri])
    assert target.read_bytes() == content()


def test_nbdcopy_starts_both_servers(host, image):
    target = host.path / 'target'
    target.write_bytes(bytes(SIZE))
    server = ['nbdkit', '--exit-with-parent', 'file']
    run(['nbdcopy', '--', '[', *server, image, ']', '[', *server, target, ']'])
    assert target.read_bytes() == content()


def test_nbdcopy_through_pipes(host, image):
    with Nbdkit(host, ['memory', SIZE]) as server:
        with open(image, 'rb') as f:
            run(['nbdcopy', '-', server.uri], stdin=f)
        host.sh(f'nbdcopy "{server.uri}" - | cmp - {image}', env=OURS)
        run(['nbdcopy', server.uri, 'null:'])


def test_nbdcopy_keeps_holes(host, image):
    copy = host.path / 'copy'
    with Nbdkit(host, ['file', image]) as server:
        run(['nbdcopy', server.uri, copy])
    # In units of 512 bytes; a file system may need some for itself.
    assert copy.stat().st_blocks <= image.stat().st_blocks + 64


def test_nbdcopy_tells_its_progress(host, image):
    with Nbdkit(host, ['file', image]) as server:
        r = run(['nbdcopy', '--progress=2', server.uri, 'null:'])
    assert r.stderr.splitlines()[-1] == '100/100'


@pytest.mark.parametrize('plugin, options, message', [
    (['memory', '1M'], [], 'destination size is smaller'),
    (['memory', SIZE, 'error-pwrite=ENOSPC', 'error-pwrite-rate=1'], ['--filter=error'],
     'No space left'),
    (['memory', SIZE], ['-r'], ''),
], ids=['too-small', 'server-error', 'read-only'])
def test_nbdcopy_fails_as_on_the_distributions_library(host, image, plugin, options, message):
    with Nbdkit(host, plugin, options=options) as server:
        ours, theirs = (run(['nbdcopy', image, server.uri], env, check=False)
                        for env in (OURS, THEIRS))
    assert ours.returncode == theirs.returncode == 1
    assert message in ours.stderr
