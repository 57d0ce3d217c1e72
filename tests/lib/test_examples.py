"""The examples do what they say, and those of libnbd.h with the distribution's library, too."""
import os
import pathlib
import re
import subprocess

import pytest

from tests.harness.paths import BUILD, ROOT
from tests.harness.servers import Nbdkit, QemuNbd

EXAMPLES = sorted(p.stem for p in (ROOT / 'contrib' / 'examples').glob('*.c'))
PLAIN = [name for name in EXAMPLES if name not in ('vector', 'uri')]
OURS = {**os.environ, 'LD_LIBRARY_PATH': str(BUILD)}


def run(program, *arguments, env=None, status=0):
    r = subprocess.run([program, *arguments], env=env or OURS, capture_output=True, text=True,
                       timeout=30)
    assert r.returncode == status, (r.returncode, r.stdout, r.stderr)
    return r.stdout if status == 0 else r.stderr


def example(name, *arguments, **how):
    return run(BUILD / 'examples' / name, *arguments, **how)


@pytest.fixture
def pattern(host):
    """A server of 1 MiB in which each 8 bytes are their offset."""
    with Nbdkit(host, ['pattern', '1M']) as server:
        yield server.uri


@pytest.fixture
def named(host):
    with Nbdkit(host, ['memory', '1M', 'exportname=a', 'exportname=b', 'exportname-strict=true',
                       'exportname-list=explicit'], options=['--filter=exportname']) as server:
        yield server.uri


@pytest.fixture
def encrypted(host):
    """(socket, file of alice's key)"""
    keys = host.path / 'keys.psk'
    keys.touch(0o600)
    keys.write_text('alice:000102030405060708090a0b0c0d0e0f\n')
    options = ['--tls=require', f'--tls-psk={keys}']
    with Nbdkit(host, ['memory', '1M'], options=options) as server:
        yield server.socket, keys


def test_read(pattern):
    lines = example('read', pattern).splitlines()
    assert len(lines) == 4
    assert lines[1] == '00 00 00 00 00 00 00 10 00 00 00 00 00 00 00 18'


def test_read_tells_what_is_wrong():
    assert example('read', 'nbd+unix:///?socket=/nonexistent', status=1).startswith(
        'read: nbd_connect_uri: connect: No such file')


def test_list(named):
    assert example('list', named) == '1: "a"\n2: "b"\n'


def test_info(host):
    with Nbdkit(host, ['memory', '1M', 'blocksize-minimum=512', 'blocksize-preferred=4096',
                       'blocksize-maximum=65536', 'exportdesc=fixed:a disk'],
                options=['--filter=blocksize-policy', '--filter=exportname']) as server:
        told = dict(line.split(': ') for line in example('info', server.uri).splitlines())
    assert (told['size'], told['protocol'], told['trim']) == ('1048576', 'newstyle-fixed', 'yes')
    assert (told['read-only'], told['description']) == ('no', 'a disk')
    assert [told[f'block-size-{k}'] for k in ('minimum', 'preferred', 'maximum')] == [
        '512', '4096', '65536']


def test_aio_poll(pattern):
    total = sum(sum(n.to_bytes(8, 'big')) for n in range(0, 1 << 20, 8))
    assert example('aio-poll', pattern) == f'1048576 bytes, sum {total}\n'


def test_copy(host, pattern):
    target = host.path / 'target'
    target.write_bytes(bytes(2 << 20))
    with Nbdkit(host, ['file', target]) as server:
        assert example('copy', pattern, server.uri) == '1048576 bytes\n'
    assert target.read_bytes() == b''.join(
        n.to_bytes(8, 'big') for n in range(0, 1 << 20, 8)) + bytes(1 << 20)


def test_map(host):
    with Nbdkit(host, ['sparse-random', '16M', 'seed=1', 'runlength=65536']) as server:
        lines = example('map', server.uri).splitlines()
    extents = [re.fullmatch(r' *(\d+) +(\d+) (.*)', line).groups() for line in lines]
    at = 0
    for offset, length, text in extents:
        assert int(offset) == at and text in ('allocated', 'hole, reads as zero')
        at += int(length)
    assert at == 16 << 20 and len(extents) > 4


def test_chunks(host):
    image = host.path / 'image'
    with open(image, 'wb') as f:
        f.truncate(1 << 20)
        f.seek(65536)
        f.write(bytes(range(1, 256)) * 257)
    with QemuNbd(host, image) as server:
        lines = example('chunks', server.uri).splitlines()
    parts = [line.split() for line in lines]
    at = 0
    for offset, length, _ in parts:
        assert int(offset) == at
        at += int(length)
    assert at == 1 << 20 and {kind for *_, kind in parts} == {'data', 'hole'}


def test_threads(pattern):
    assert example('threads', pattern) == example('aio-poll', pattern)


def test_command(host):
    assert example('command', 'nbdkit', 'memory', '1M') == '1048576 bytes\n'
    assert 'nbd_connect_systemd_socket_activation' in example('command', 'false', status=1)


def test_tls(encrypted):
    assert example('tls', *encrypted, 'alice') == 'encrypted: yes\n'
    assert "has no key for user 'bob'" in example('tls', *encrypted, 'bob', status=1)


def test_options(named):
    out = example('options', named, 'x', 'b', 'a')
    assert out == 'x: no\nb: 1048576 bytes\n  context base:allocation\nusing b\n'
    assert example('options', named, 'x', status=1) == ''


def test_vector(host):
    with Nbdkit(host, ['memory', '1M']) as server:
        assert example('vector', server.uri) == '4096 bytes in one request\n'


def test_uri():
    assert example('uri', 'nbds://alice@example.com/a%20b?tls-psk-file=/k').splitlines() == [
        'transport: tcp', 'tls: required', 'host: example.com', 'port: 10809', 'export: a b',
        'user: alice', 'psk-file: /k']
    assert 'scheme' in example('uri', '/tmp/socket', status=1)


@pytest.mark.skipif(not pathlib.Path('/usr/include/libnbd.h').exists(),
                    reason="the distribution's libnbd-dev is not there")
@pytest.mark.parametrize('name', PLAIN)
def test_example_built_with_either_header_runs_on_either_library(named, pattern, encrypted,
                                                                 tmp_path, name):
    """Four ways, one output."""
    source = ROOT / 'contrib' / 'examples' / f'{name}.c'
    theirs = {k: v for k, v in os.environ.items() if k != 'LD_LIBRARY_PATH'}
    arguments = {'list': [named], 'options': [named, 'x', 'a'],
                 'command': ['nbdkit', 'memory', '1M'], 'tls': [*encrypted, 'alice'],
                 'copy': [pattern, named.replace('/?', '/a?')]}.get(name, [pattern])
    outputs = set()
    for flags in (['-I', BUILD / 'include', '-L', BUILD], []):
        program = tmp_path / name
        subprocess.run(['gcc', '-std=c11', '-Wall', '-Wextra', '-Werror', '-o', program, source,
                        *flags, '-lnbd'], check=True)
        outputs |= {run(program, *arguments, env=env) for env in (OURS, theirs)}
    assert len(outputs) == 1 and outputs.pop()
