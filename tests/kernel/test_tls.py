"""Encrypted devices: the kernel's TLS carries the data, and reconnects as any device does."""
import pytest

from tests.harness.daemon import Daemon
from tests.harness.wait import wait_until
from tests.harness.workload import Workload
from tests.kernel.disk import mounted
from tests.kernel.tls_guest import install, tls_server

pytestmark = pytest.mark.guest


@pytest.fixture(scope='module')
def at(guest):
    return install(guest)


@pytest.fixture(scope='module')
def daemon(guest):
    with Daemon(guest) as d:
        yield d


def attach(daemon, server, at, name, client='client', **keys):
    return daemon.attach(server.uri.replace('nbd:', 'nbds:', 1), name=name,
                         tls_certificates=f'{at}/pki/{client}', **keys)


def test_a_filesystem_over_tls_in_the_kernel_survives_its_server(guest, daemon, at):
    with tls_server(guest, at, 'survives', options=['--tls-verify-peer']) as server:
        device = attach(daemon, server, at, 'survives', kernel_tls='require')
        tls = daemon.status('survives')['tls']
        assert (tls['version'], tls['cipher']) == ('TLS1.3', 'CHACHA20-POLY1305')
        assert tls['in_kernel'] and tls['why_not_in_kernel'] is None
        for certificate in ('certificate', 'own_certificate'):
            assert 98 <= tls[certificate]['days_left'] <= 100
        assert tls['certificate']['names'] == 'localhost, 127.0.0.1'
        with mounted(guest, device) as mount:
            w = Workload(guest, f'{mount}/file', size='16M', direct=True).start()
            for outage in range(1, 4):
                server.restart()
                wait_until(lambda: daemon.status('survives')['outages']['count'] >= outage)
                w.wait_flowing(10)
            w.finish()
        daemon.detach('survives')
