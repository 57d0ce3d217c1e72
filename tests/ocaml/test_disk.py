"""nbd-unix against nbdkit, qemu-nbd and the scripted server."""
import shutil
import subprocess

import pytest

from tests.harness.script import scripted
from tests.harness.servers import Nbdkit, QemuNbd
from tests.ocaml.programs import ENVIRONMENT, needs_ocaml, program, run

LIBRARIES = ('lwt.unix', 'cstruct')


def libraries_missing():
    if not shutil.which('ocamlfind'):
        return ['ocamlfind']
    return [name for name in LIBRARIES if subprocess.run(
        ['ocamlfind', 'query', name], capture_output=True).returncode != 0]


pytestmark = [needs_ocaml, pytest.mark.slow, pytest.mark.skipif(
    bool(libraries_missing()),
    reason=f'not on this machine: {", ".join(libraries_missing())} (contrib/deps test)')]


def disk(test, where, *more):
    out = run(program('disk', 'nbd-unix', ('-thread',)), test, where, *more)
    return out.splitlines()


@pytest.fixture(scope='module')
def script(machine):
    """script(NAME): the socket of a scripted server that does so."""
    with scripted(machine, 'good', tcp=False) as server:
        def switch(name):
            server.switch(name)
            return server.socket
        yield switch


@pytest.fixture(scope='module', params=['nbdkit', 'qemu-nbd'])
def real(request, machine):
    if request.param == 'nbdkit':
        server = Nbdkit(machine, ['memory', '128M'])
    else:
        image = machine.path / 'image'
        with open(image, 'wb') as f:
            f.truncate(128 << 20)
        server = QemuNbd(machine, image)
    with server:
        yield server.socket


def test_list(real):
    exports, size = disk('listed', real)
    assert exports == 'exports: '
    assert size.startswith('134217728 bytes, flush FUA trim write-zeroes')


def test_list_of_several(machine):
    with Nbdkit(machine, ['memory', '1M', 'exportname=a', 'exportname=b', 'exportname-list=explicit'],
                options=['--filter=exportname']) as server:
        assert disk('listed', server.socket)[0] == 'exports: a,b'


@pytest.mark.parametrize('name, told', [
    ('list-forbidden', 'policy'), ('list-unknown', 'unsupported'),
    ('newstyle', 'unsupported'), ('oldstyle', 'unsupported')])
def test_list_refused(script, name, told):
    assert disk('listed', script(name))[0] == told


def test_list_of_a_broken_server_is_no_answer(script):
    path = script('name-beyond-list')
    program_ = program('disk', 'nbd-unix', ('-thread',))
    _, told = run(program_, 'listed', path, status=2)
    assert 'NBD.Error("nbd-unix: list: ' in told


def test_read_only(script):
    assert disk('read_only', script('read-only')) == ['false, disk is read-only', 'ok']


@pytest.mark.parametrize('test', ['many_buffers', 'large', 'in_flight'])
def test_data(real, test):
    assert disk(test, real) == []


def test_requests_that_cannot_be(real):
    einval, enospc = (f'the server failed the request: {e}' for e in ('EINVAL', 'ENOSPC'))
    assert disk('refused_requests', real) == [
        f'read beyond: {einval}', f'write beyond: {enospc}', f'before: {einval}',
        f'far beyond: {einval}', f'uneven: {einval}', 'nothing: ok',
        'afterwards: disk is disconnected']


@pytest.mark.parametrize('error, told', [
    ('eio', 'EIO'), ('enospc', 'ENOSPC'), ('eperm', 'EPERM'), ('eshutdown', 'error 108')])
def test_errors_of_the_server(script, error, told):
    assert disk('server_error', script(f'error-{error}')) == [
        f'the server failed the request: {told}']


def test_disconnect_with_requests_in_flight(machine, real):
    assert disk('disconnect_in_flight', real) == ['all over']
    with Nbdkit(machine, ['memory', '1M', 'rdelay=300ms'], options=['--filter=delay']) as slow:
        assert disk('disconnect_in_flight', slow.socket) == ['all over']


def test_server_dies_in_the_middle(machine):
    with Nbdkit(machine, ['memory', '1M', 'rdelay=60'], options=['--filter=delay']) as server:
        p = subprocess.Popen([program('disk', 'nbd-unix', ('-thread',)), 'server_killed', server.socket],
                             env=ENVIRONMENT, stdout=subprocess.PIPE, text=True)
        try:
            assert p.stdout.readline() == 'reading\n'
            server.kill()
            assert p.communicate(timeout=20)[0] == 'disk is disconnected\n' * 2
            assert p.returncode == 0
        finally:
            p.kill()


@pytest.mark.parametrize('name, told', [
    ('missing', 'the server refused: it has no such export'),
    ('refuse-policy', 'the server refused: its policy forbids it'),
    ('refuse-unnamed', 'the server refused with reply 0x80001234')])
def test_refused_export(script, name, told):
    assert disk('negotiated', script(name), 'x') == [
        f'nbd-unix: negotiate: export "x": {told}']


def test_channels(kit, tcp, psk):
    size = str(8 << 20)
    assert disk('of_fd', kit.socket) == [size]
    assert disk('of_tcp', tcp.port) == [size]
    server, keys = psk
    assert disk('tls', server.socket, keys, 'alice') == ['tls true', size]


def test_channels_that_fail(kit, psk, tmp_path):
    server, keys = psk
    assert 'TLS' in disk('tls', server.socket, keys, 'bob')[0]
    assert 'refused TLS' in disk('tls', kit.socket, keys, 'alice')[0]
    assert 'No such file' in disk('tls', tmp_path / 'none', keys, 'alice')[0]
    assert disk('of_tcp', '1')[0].endswith('connect: Connection refused')
