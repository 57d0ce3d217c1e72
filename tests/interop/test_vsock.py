"""AF_VSOCK, in a kernel that has it: the loopback of a guest."""
import pytest

from tests.harness.paths import ROOT
from tests.harness.wait import wait_until

# Like all that runs in guests: never with sanitizers.
BUILD = ROOT / 'build'
PORT = 10810

pytestmark = pytest.mark.guest


@pytest.fixture(scope='module')
def machine(boot):
    return boot(modules=['vsock_loopback'])


def run(machine, program, *arguments):
    rc, out = machine.run(['env', f'LD_LIBRARY_PATH={BUILD}', program, *arguments], check=False)
    return rc, out.strip()


def test_vsock_is_a_transport_like_others(machine):
    """Read, list, written and read back, by URI; what cannot be reached is told."""
    examples = BUILD / 'examples'
    uri = f'nbd+vsock://1:{PORT}/'
    server = machine.spawn(['nbdkit', '-f', '--vsock', '-p', PORT, 'memory', '1M'])
    wait_until(lambda: run(machine, examples / 'list', uri) == (0, '1: ""'), what='nbdkit')
    assert run(machine, examples / 'vector', uri) == (0, '4096 bytes in one request')
    assert run(machine, 'nbdinfo', '--size', uri) == (0, str(1 << 20))
    rc, out = run(machine, examples / 'read', 'nbd+vsock://1:1/')
    assert rc == 1 and out.startswith('read: nbd_connect_uri: connect: ')
    server.kill()
    server.wait()
