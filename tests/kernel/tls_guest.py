"""What the tests of TLS share: certificates in the guest, servers with TLS."""
from tests.harness.pki import make_certificates, make_keys
from tests.harness.servers import Nbdkit
from tests.kernel.disk import DISK_MB


def install(guest):
    """Certificates and keys in the guest's directory: their place."""
    at = guest.path / 'tls'
    at.mkdir()
    (at / 'pki').mkdir()
    make_certificates(at / 'pki')
    make_keys(at)
    return at


def tls_server(guest, at, name='disk', megabytes=DISK_MB, options=(), **address):
    """nbdkit with certificates, and a file in the guest's memory that outlives it."""
    path = f'/tmp/{name}'
    guest.run(['truncate', '-s', f'{megabytes}M', path])
    return Nbdkit(guest, ['file', path], tcp='socket' not in address, options=[
        '--tls=require', f'--tls-certificates={at}/pki/server', *options], **address)
