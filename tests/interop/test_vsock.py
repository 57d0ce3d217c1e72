"""AF_VSOCK, in a kernel that has it: the loopback of a guest."""
import signal

import pytest

from tests.harness.daemon import Daemon
from tests.harness.paths import ROOT
from tests.harness.servers import Nbdkit
from tests.harness.wait import wait_until
from tests.harness.workload import Workload
from tests.kernel.tls_guest import install, nbds

# Like all that runs in guests: never with sanitizers.
BUILD = ROOT / 'build'
PORT = 10810

pytestmark = pytest.mark.guest


@pytest.fixture(scope='module')
def machine(boot):
    return boot(modules=['vsock_loopback'])


@pytest.fixture(scope='module')
def at(machine):
    return install(machine)


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


class VsockNbdkit(Nbdkit):
    """nbdkit on the port of a vsock; nothing in /proc lists those."""

    @property
    def uri(self):
        return f'nbd+vsock://1:{self.port}/'

    def argv(self):
        return ['nbdkit', '-f', '--vsock', '-p', str(self.port), *self.options, *self.plugin]

    def start(self, timeout=20):
        self.process = self.launch()
        wait_until(lambda: run(self.machine, BUILD / 'examples' / 'read', self.uri)[1].find(
            'connect: ') < 0, timeout, 'nbdkit')
        return self


@pytest.mark.parametrize('tls', [False, True])
def test_a_device_over_vsock_is_relayed_and_survives_server_and_relay(machine, at, tls):
    """The kernel's nbd driver takes no vsock: a relay does, with and without TLS."""
    machine.run(['truncate', '-s', '64M', '/tmp/vsock'])
    options = ['--tls=require', f'--tls-certificates={at}/pki/server'] if tls else []
    keys = {'tls_certificates': f'{at}/pki/client'} if tls else {}
    with VsockNbdkit(machine, ['file', '/tmp/vsock'], port=PORT, options=options) as server, \
            Daemon(machine) as daemon:
        uri = nbds(server) if tls else server.uri
        device = daemon.attach(uri, name='vsock', connections=1, **keys)
        status = daemon.status('vsock')
        assert status['peer'] == f'vsock:1:{PORT}' and status['connections'][0]['relay']
        if tls:
            assert status['tls']['why_not_in_kernel'] == 'its TLS is for TCP alone'
        else:
            assert status['tls'] is None
            assert 'relayed by process' in daemon.ctl('status', 'vsock').out
        w = Workload(machine, device, size='8M', jobs=2, direct=True).start()
        server.restart()
        w.wait_flowing(15)
        machine.kill(daemon.status('vsock')['connections'][0]['relay'], signal.SIGKILL)
        wait_until(lambda: daemon.status('vsock')['outages']['count'] == 2, 10)
        server.restart()                # it may abort when a client goes that way
        w.wait_flowing(15)
        daemon.crash()                  # its address is in the state file
        daemon.start()
        assert daemon.status('vsock')['connections'][0]['relay']
        server.restart()
        w.wait_flowing(15)
        w.finish()
        daemon.detach('vsock')
    assert 'I/O error' not in machine.dmesg()


def test_a_vsock_without_a_server_is_told_of(machine, at):
    with Daemon(machine) as daemon:
        r = daemon.ctl('attach', 'nbd+vsock://1:4/', check=False)
        assert r.rc != 0 and 'connect to vsock:1:4: Connection reset by peer' in r.out
        r = daemon.ctl('attach', 'nbds+vsock://1:4/', '--kernel-tls=require',
                       f'--tls-certificates={at}/pki/client', check=False)
        assert r.rc != 0
