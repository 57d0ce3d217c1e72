"""Keys of encrypted devices: who sees them, how they are renewed, how long they are used."""
import shutil

import pytest

from tests.control.prometheus import samples
from tests.harness.daemon import Daemon
from tests.harness.pki import Authority
from tests.harness.wait import wait_until
from tests.harness.workload import Workload
from tests.kernel.tls_guest import cut_server, install, nbds, tls_server

pytestmark = pytest.mark.guest
RECORDS = 1000                  # after which a connection with AES-GCM is replaced here


@pytest.fixture(scope='module')
def at(guest):
    return install(guest)


@pytest.fixture(scope='module')
def daemon(guest):
    with Daemon(guest, env={'NBDD_TLS_RECORDS': RECORDS}) as d:
        yield d


def own_copy(at, name, source='client'):
    shutil.copytree(at / 'pki' / source, at / name)
    return at / name


def attach(daemon, server, name, directory, **keys):
    return daemon.attach(nbds(server), name=name, tls_certificates=directory,
                         kernel_tls='require', **keys)


def expires(at, directory, days):
    """A certificate of a client that ends in so many days."""
    ca = Authority.__new__(Authority)
    ca.path = at / 'pki' / 'ca'
    ca.issue(directory, 'client', days=days)


def reconnect_until(daemon, name, right):
    """The status once it is RIGHT: after the next connection, or one more where a reader of
    files is kept waiting by the machine's load, for nobody waits long for it."""
    for _ in range(4):
        before = daemon.status(name)['outages']['count']
        daemon.ctl('reconnect', name)

        def back(before=before):
            s = daemon.status(name)
            assert s['state'] == 'connected' and s['outages']['count'] > before
            return s
        s = wait_until(back, 20, 'a new connection', 0.1)
        if right(s):
            break
    return s


def days_left(s):
    return s['tls']['own_certificate']['days_left']


def test_keys_are_in_no_dump_no_log_and_no_other_child(guest, daemon, at):
    directory = own_copy(at, 'seen')
    secret = (directory / 'client-key.pem').read_text().split('-----')[2].split()[0]
    with tls_server(guest, at, 'seen', options=['--tls-verify-peer']) as server:
        attach(daemon, server, 'seen', directory)
        found = guest.python('tests.kernel.inside:find_in_memory', pid=daemon.pid, text=secret)
        # dd: not in a dump, wf: zero in a child, lo: locked
        assert found, 'this test does not look at the right place'
        for flags in found:
            assert {'dd', 'wf', 'lo'} <= set(flags.split()), found
        assert secret not in daemon.log() + str(daemon.status())
        daemon.detach('seen')
        assert not guest.python('tests.kernel.inside:find_in_memory', pid=daemon.pid,
                                text=secret), 'wiped when the device is gone'


def test_renewed_files_are_used_and_bad_ones_are_not(guest, daemon, at):
    directory = own_copy(at, 'renewed')
    with cut_server(guest, at, 'renewed') as server:
        device = attach(daemon, server, 'renewed', directory)
        w = Workload(guest, device, size='1M', jobs=1, direct=True).start()
        assert daemon.status('renewed')['tls']['own_certificate']['days_left'] == 99
        expires(at, directory, 7)
        s = reconnect_until(daemon, 'renewed', lambda s: days_left(s) == 6)
        assert days_left(s) == 6
        metrics = samples(daemon.ctl('status', '--prometheus').out)
        for whose, certificate in (('own', 'own_certificate'), ('server', 'certificate')):
            assert metrics['nbdd_device_certificate_expiry_timestamp_seconds{device="%s",name='
                           '"renewed",certificate="%s"}' % (device[5:], whose)] == \
                s['tls'][certificate]['expires'] / 1e6
        assert [x for x in s['warnings'] if x.startswith('our certificate ends on 2')]
        wait_until(lambda: 'our certificate ends on 2' in daemon.log(), 10, 'the warning')
        for spoil, words in (
                (lambda: (directory / 'client-key.pem').write_text('half'), 'cannot be used'),
                (lambda: (directory / 'client-key.pem').chmod(0o644), 'chmod 600'),
                (lambda: shutil.rmtree(directory), 'neither ca-cert.pem')):
            spoil()
            s = reconnect_until(daemon, 'renewed', lambda s, words=words: words in
                                ''.join(s['warnings']))
            warning, = (x for x in s['warnings'] if 'using what was read before' in x)
            assert words in warning
        own_copy(at, 'renewed')
        s = reconnect_until(daemon, 'renewed', lambda s: not s['warnings'])
        assert s['warnings'] == [] and days_left(s) == 99
        w.wait_flowing(10)
        w.finish()
        daemon.detach('renewed')


def test_a_connection_with_aes_is_replaced_before_its_key_is_used_up(guest, daemon, at):
    with cut_server(guest, at, 'limit', verify='no') as server:
        device = attach(daemon, server, 'limit', at / 'pki/ca-only',
                        tls_priority='NORMAL:-CIPHER-ALL:+AES-128-GCM')
        w = Workload(guest, device, size='2M', jobs=2, direct=True).start()
        wait_until(lambda: daemon.status('limit')['outages']['count'] >= 2, 60,
                   'two connections to be replaced', 0.5)
        last = daemon.status('limit')['outages']['last']
        assert 'its TLS key was used for long enough' in last['reason']
        w.wait_flowing(10)
        w.finish()
        daemon.detach('limit')
    assert 'I/O error' not in guest.dmesg()


def test_a_kernel_without_tls_is_told_of(guest, daemon, at):
    """The last one: the guest is without from now on."""
    wait_until(lambda: guest.run(['busybox', 'rmmod', 'tls']), 20)
    with tls_server(guest, at, 'without') as server:
        r = daemon.ctl('attach', nbds(server), '--name=without', '--kernel-tls=require',
                       f'--tls-certificates={at}/pki/ca-only', check=False)
        assert r.rc == 1
        assert ('the kernel cannot do TLS here (its module tls is not loaded), but kernel-tls '
                "is 'require'") in r.out
