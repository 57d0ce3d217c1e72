"""nbdctl with the real daemon on a real kernel."""
import re

import pytest

from tests.control import prometheus
from tests.control.idl import Interface
from tests.control.test_nbdctl import FAILED, HELD, NO_DEVICE, OK, PERMISSION, USAGE
from tests.harness.daemon import Daemon
from tests.harness.paths import BUILD, NBDCTL, ROOT
from tests.harness.servers import Nbdkit
from tests.harness.wait import wait_until

pytestmark = pytest.mark.guest
TEXT = (ROOT / 'daemon/proto/io.nbdd.Manager.varlink').read_text()


@pytest.fixture
def daemon(guest):
    with Daemon(guest) as d:
        yield d


@pytest.fixture
def server(guest):
    with Nbdkit(guest) as s:
        yield s


def fails(daemon, status, *args):
    """nbdctl ARGS ends with STATUS; what it said."""
    r = daemon.ctl(*args, check=False)
    assert r.rc == status, r
    assert r.out.startswith('nbdctl: ')
    return r.out


def talk(guest, daemon, *calls):
    return guest.python('tests.control.varlink:talk', path=daemon.socket, calls=list(calls))


def test_the_daemon_describes_its_interface_and_keeps_to_it(guest, daemon, server):
    device = daemon.attach(server.uri, name='a')
    about, status, one, none, wrong, odd = talk(
        guest, daemon,
        ('org.varlink.service.GetInterfaceDescription', {'interface': 'io.nbdd.Manager'}),
        ('io.nbdd.Manager.Status', {}), ('io.nbdd.Manager.Status', {'device': device}),
        ('io.nbdd.Manager.Status', {'device': 'none'}),
        ('io.nbdd.Manager.Attach', {'name': 'b', 'keys': {'timeout': 'x', 'uri': server.uri}}),
        ('io.nbdd.Manager.Attach', {'name': 'b', 'keys': [1]}))
    assert about['parameters']['description'] == TEXT
    i = Interface(TEXT)
    for reply in (status, one):
        assert i.check(reply['parameters'], i.methods['Status'][1])
        assert [d['name'] for d in reply['parameters']['devices']] == ['a']
    for reply, error in ((none, 'NoSuchDevice'), (wrong, 'InvalidKey')):
        assert reply['error'] == f'io.nbdd.Manager.{error}'
        assert i.check(reply['parameters'], i.errors[error])
    assert odd['error'] == 'org.varlink.service.InvalidParameter'


def test_attach_status_reconnect_detach(daemon, server):
    device = daemon.ctl('attach', server.uri, '--name=a').out.strip()
    assert re.fullmatch(r'/dev/nbd\d+', device)
    assert daemon.ctl('attach', server.uri, '--name=a').out == f'{device}\n'
    out = daemon.ctl('status').out
    assert out.splitlines()[1].split()[:5] == [device, 'a', 'connected', '64', 'MiB']
    assert 'Size: 64 MiB (67108864 bytes)' in daemon.ctl('status', 'a').out
    since = daemon.status('a')['connections'][0]['since']
    assert daemon.ctl('reconnect', 'a').out == ''
    daemon.wait_state('a', 'connected')
    wait_until(lambda: daemon.status('a')['connections'][0]['since'] > since)
    assert daemon.ctl('detach', device).out == ''
    assert daemon.status() == []


def test_metrics_are_what_prometheus_expects(guest, daemon, tmp_path):
    with Nbdkit(guest, tcp=True) as server:
        see_metrics(daemon, server, tmp_path)


def see_metrics(daemon, server, tmp_path):
    device = daemon.attach(server.uri, name='a')
    daemon.machine.run(['dd', f'if={device}', 'of=/dev/null', 'bs=64k', 'count=16',
                        'iflag=direct'])
    text = daemon.ctl('status', '--prometheus').out
    assert prometheus.promtool('check', 'metrics', text=text) == ''
    assert {n: t for n, t in re.findall('^# TYPE (\\w+) (\\w+)', text, re.M)} == \
        prometheus.names()
    now, of = prometheus.samples(text), f'device="{device[5:]}",name="a"'
    assert now[f'nbdd_device_read_bytes_total{{{of}}}'] >= 1 << 20
    assert now[f'nbdd_device_reads_completed_total{{{of}}}'] >= 16
    assert now[f'nbdd_device_size_bytes{{{of}}}'] == 64 << 20
    assert now[f'nbdd_device_info{{{of},uri="{server.uri}"}}'] == 1
    assert now[f'nbdd_connection_up{{{of},connection="0"}}'] == 1
    assert 0 < now[f'nbdd_connection_rtt_seconds{{{of},connection="0"}}'] < 1

    def states(metrics):
        return {k.rsplit('"', 2)[1] for k, v in metrics.items()
                if k.startswith(f'nbdd_device_state{{{of}') and v}
    assert states(now) == {'connected'}
    server.kill()
    daemon.wait_state('a', 'reconnecting')
    wait_until(lambda: daemon.status('a')['retry']['attempts'] > 1)
    file = f'{daemon.machine.path}/nbdd.prom'
    daemon.ctl('status', '--prometheus', f'--output={file}')
    # The directory is this machine's, too; the unit makes such a link.
    (tmp_path / 'nbdd.prom').symlink_to(file)
    now = prometheus.samples(prometheus.exported(tmp_path))
    assert now['node_textfile_scrape_error'] == 0
    assert states(now) == {'reconnecting'}
    assert now[f'nbdd_device_outages_total{{{of}}}'] == 1
    assert now[f'nbdd_device_outage_seconds_total{{{of}}}'] > 0
    assert now[f'nbdd_device_reconnect_attempts_total{{{of}}}'] >= 2
    assert f'nbdd_connection_rtt_seconds{{{of},connection="0"}}' not in now
    server.start()
    daemon.wait_state('a', 'connected')


def test_what_cannot_be_done_has_its_status_and_says_why(daemon, server):
    assert 'none' in fails(daemon, NO_DEVICE, 'attach', 'none')
    assert 'none' in fails(daemon, NO_DEVICE, 'detach', 'none')
    assert 'none' in fails(daemon, NO_DEVICE, 'reconnect', 'none')
    assert 'none' in fails(daemon, NO_DEVICE, 'status', 'none')
    assert 'refused' in fails(daemon, FAILED, 'attach', 'nbd://127.0.0.1:1/')
    assert 'timeout' in fails(daemon, USAGE, 'attach', 'nbd://h', '--timeout=x')
    device = daemon.attach(server.uri, name='a')
    assert 'a' in fails(daemon, FAILED, 'attach', 'nbd://127.0.0.1:1/', '--name=a')
    assert device in fails(daemon, FAILED, 'attach', 'nbd://127.0.0.1:1/', f'--device={device}')


def test_who_is_not_root_may_look_and_nothing_else(guest, daemon, server):
    daemon.attach(server.uri, name='a')

    def nobody(*args):
        return guest.run(['setpriv', '--reuid=65534', '--clear-groups', NBDCTL,
                          f'--runtime-dir={daemon.runtime_dir}', *args], check=False)
    assert nobody('status').rc == OK and 'connected' in nobody('status', 'a').out
    for args in (['attach', server.uri], ['detach', 'a', '--force'], ['reconnect', 'a']):
        r = nobody(*args)
        assert (r.rc, r.out) == (PERMISSION, 'nbdctl: only root may do this\n')
    assert daemon.state('a') == 'connected'


def test_the_manual_says_who_may_call_each_method_and_the_daemon_heeds_it(guest, daemon):
    page = (BUILD / 'man/man8/nbdd.8').read_text()
    may = {who: set(re.findall(r'^\.BR (\w+)', text, re.M)) for who, text in re.findall(
        r'^(Anybody|Only root) may call\n((?:\.BR .*\n)+)', page, re.M)}
    methods = Interface(TEXT).methods
    assert may['Anybody'] == {'Status', 'Metrics'}
    assert may['Only root'] == set(methods) - may['Anybody']
    for method in methods:
        # Without parameters none of them does anything.
        asked = [guest.python(f'tests.kernel.inside:as_{who}', path=daemon.socket,
                              method=f'io.nbdd.Manager.{method}', parameters={'device': 1})
                 for who in ('nobody', 'root')]
        refused = [a.get('error') == 'org.varlink.service.PermissionDenied' for a in asked]
        assert refused == [method not in may['Anybody'], False], (method, asked)


def test_detach_names_every_kind_of_holder(guest, daemon, server):
    device = daemon.attach(server.uri, name='a')
    guest.run(['mkfs.ext4', '-q', device])
    guest.run(['mount', device, '/mnt'])
    out = fails(daemon, HELD, 'detach', 'a')
    assert f'{device[5:]} is mounted on /mnt: umount /mnt' in out and '--force' in out
    guest.run(['umount', '/mnt'])
    holder = guest.spawn(['sh', '-c', f'exec sleep 1000 3<{device}'])
    wait_until(lambda: '3' in guest.list(f'/proc/{holder.pid}/fd'))
    wait_until(lambda: 'sleep' in guest.read(f'/proc/{holder.pid}/comm'))
    assert f'opened by sleep (pid {holder.pid})' in fails(daemon, HELD, 'detach', 'a')
    holder.kill()
    holder.wait()
    guest.run(['mkswap', device])
    guest.run(['swapon', device])
    assert f'used as swap space: swapoff {device}' in fails(daemon, HELD, 'detach', 'a')
    guest.run(['swapoff', device])
    daemon.detach('a')


def test_watch_follows_an_outage(guest, daemon, server):
    device = daemon.attach(server.uri, name='a')
    watch = guest.spawn([NBDCTL, f'--runtime-dir={daemon.runtime_dir}', 'status', '--watch'])
    wait_until(lambda: f'{device} a connected' in watch.output)
    server.kill()
    wait_until(lambda: f'{device} a reconnecting: the server is away' in watch.output)
    server.start()
    wait_until(lambda: watch.output.count('a connected') == 2)
    daemon.detach('a')
    wait_until(lambda: f'{device} a detached' in watch.output)
    watch.kill()
    assert watch.wait() == 128 + 15
