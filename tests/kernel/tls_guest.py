"""What the tests of TLS share: certificates in the guest, servers with TLS."""
from tests.harness.paths import TLS_SERVER
from tests.harness.pki import make_certificates, make_keys
from tests.harness.servers import Nbdkit, QemuNbd, Server
from tests.kernel.disk import DISK_MB, ONE_THREAD


def install(guest):
    """Certificates and keys in the guest's directory: their place."""
    at = guest.path / 'tls'
    at.mkdir()
    (at / 'pki').mkdir()
    make_certificates(at / 'pki')
    make_keys(at)
    return at


def nbds(server):
    return server.uri.replace('nbd:', 'nbds:', 1).replace('nbd+', 'nbds+', 1)


def tls_server(guest, at, name='disk', megabytes=DISK_MB, options=(), **address):
    """nbdkit with certificates, and a file in the guest's memory that outlives it."""
    path = f'/tmp/{name}'
    guest.run(['truncate', '-s', f'{megabytes}M', path])
    return Nbdkit(guest, ['file', path], tcp='socket' not in address, options=[
        *ONE_THREAD, '--tls=require', f'--tls-certificates={at}/pki/server', *options], **address)


def qemu_tls(at, verify='yes'):
    """Options of qemu-nbd: TLS with certificates."""
    return ['--object', f'tls-creds-x509,dir={at}/pki/server,verify-peer={verify},id=t,'
            'endpoint=server', '--tls-creds', 't']


def cut_server(guest, at, name, verify='yes'):
    """qemu-nbd, for tests in which the client hangs up: nbdkit 1.32 may abort then."""
    guest.run(['truncate', '-s', f'{DISK_MB}M', f'/tmp/{name}'])
    return QemuNbd(guest, f'/tmp/{name}', tcp=True, options=qemu_tls(at, verify))


class Misbehaving(Server):
    """tls_server.c: `do(WORD)` makes it do something else than it should, once."""

    def __init__(self, machine, at, name, priority='NORMAL'):
        super().__init__(machine, tcp=True)
        self.file, self.at, self.priority = f'/tmp/{name}', at, priority
        self.control = f'/tmp/{name}.control'
        machine.run(['truncate', '-s', f'{DISK_MB}M', self.file])

    def argv(self):
        return [TLS_SERVER, self.port, f'{self.at}/pki/server', self.priority, self.file,
                self.control]

    def do(self, word):
        self.machine.write(f'{self.control}.new', word)
        self.machine.run(['mv', f'{self.control}.new', self.control])

    def done(self):
        return not self.machine.exists(self.control)
