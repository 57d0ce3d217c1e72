"""nbdctl with the real daemon on a real kernel."""
import json
import pwd
import re
import signal

import pytest

from tests.control import prometheus, test_events
from tests.control.idl import Interface
from tests.control.test_nbdctl import FAILED, HELD, NO_DEVICE, OK, PERMISSION, USAGE
from tests.control.tmux import Window
from tests.harness.daemon import Daemon
from tests.harness.paths import BUILD, NBDCTL, ROOT
from tests.harness.servers import Nbdkit
from tests.harness.wait import Stopwatch, wait_until
from tests.kernel.cost import descriptors

pytestmark = pytest.mark.guest
USERS = {p.pw_name: p.pw_uid for p in pwd.getpwall()}
UNPRIVILEGED = USERS.get('nbdd', USERS['nobody'])
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
    assert may['Anybody'] == {'Status', 'Metrics', 'Events'}
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


SCRIPT = """#!/bin/sh
case $NBDD_NAME in hangs) exec sleep 1000 ;; esac
echo "$(id -u) $NBDD_EVENT $NBDD_DEVICE $NBDD_NAME $# $NBDD_TIME $NBDD_MESSAGE" >>{log}
"""


@pytest.fixture
def script(guest):
    """A program for on-event; `script.lines()` is what it was run with."""
    class Program:
        path, log = f'{guest.path}/on-event', f'{guest.path}/events'

        def lines(self):
            return [line.split(' ', 6) for line in guest.read(self.log).splitlines()]

        def events(self, name):
            return [line[1] for line in self.lines() if line[3] == name]
    guest.write(Program.log, '')
    guest.write(Program.path, SCRIPT.format(log=Program.log))
    guest.sh(f'chmod 755 {Program.path}; chmod 666 {Program.log}; chmod 755 {guest.path}')
    return Program()


def runner(guest, daemon):
    """The pid of the process that runs programs."""
    return next(pid for pid, (comm, state, parent) in guest.processes().items()
                if (comm, parent) == ('programs', daemon.pid) and state != 'Z')


def test_a_program_runs_for_each_event_in_order_and_a_hung_one_is_in_nobodys_way(
        guest, daemon, server, script):
    old = runner(guest, daemon)
    device = daemon.attach(server.uri, name='a', on_event=script.path)
    wait_until(lambda: script.events('a') == ['attached'])
    assert script.lines()[0][:5] == [str(UNPRIVILEGED), 'attached', device, 'a', '0']
    assert script.lines()[0][6].startswith(f'attached as {device}: 64 MiB, 1 connection')
    daemon.attach(server.uri, name='fails', on_event='/bin/sleep')
    hung = daemon.attach(server.uri, name='hangs', on_event=script.path)
    for _ in range(3):
        since = daemon.status('hangs')['connections'][0]['since']
        watch = Stopwatch()
        daemon.ctl('reconnect', 'hangs')
        wait_until(lambda: daemon.status('hangs')['connections'][0]['since'] > since, 10)
        assert watch.quiet() < 5
    assert '/bin/sleep for \'attached\' ended with status' in wait_log(daemon, 'fails: on-event')
    # Another device's programs run meanwhile.
    daemon.ctl('reconnect', 'a')
    wait_until(lambda: script.events('a') == ['attached', 'outage', 'reconnected'])
    # The next nbdd has a process of its own, and a device keeps its key.
    daemon.replace()
    wait_until(lambda: script.events('a')[3:] == ['adopted'])
    assert runner(guest, daemon) != old
    # Without the process nothing runs, and nothing else suffers.
    guest.kill(runner(guest, daemon), 9)
    wait_log(daemon, 'the process that runs the programs of on-event has ended')
    assert 'none runs until nbdd is started anew' in daemon.status('a')['warnings'][-1]
    assert 'none runs until nbdd is started anew' in daemon.ctl('status', 'a').out
    daemon.ctl('reconnect', 'a')
    wait_log(daemon, 'on-event: too many programs wait')
    daemon.wait_state('a', 'connected')
    daemon.crash()
    daemon.start()
    assert daemon.status('a')['warnings'] == []
    daemon.ctl('detach', 'a')
    wait_until(lambda: script.events('a')[4:] == ['adopted', 'detached'])
    daemon.ctl('detach', hung)


@pytest.mark.soak
def test_programs_that_all_hang_are_left_out_and_counted(guest, daemon, server, script):
    daemon.attach(server.uri, name='hangs', on_event=script.path)
    watch = guest.spawn(daemon.ctl_argv('events', 'hangs', '--json'))
    wait_until(lambda: 'too many programs wait' in daemon.log() or
               cut(guest, daemon, 'hangs'), 60)
    cut(guest, daemon, 'hangs')
    daemon.wait_state('hangs', 'connected')
    lines = wait_until(lambda: watch.output.splitlines()[-1:], 10)
    assert json.loads(lines[0])['event']['name'] == 'hangs'
    watch.kill()
    watch.wait()
    # What it had left to run is not waited for.
    daemon.detach('hangs')


def cut(guest, daemon, name):
    """Ten times a new connection."""
    for _ in range(10):
        daemon.machine.call(daemon.socket, 'io.nbdd.Manager.Reconnect', {'device': name})
        wait_until(lambda: daemon.state(name) == 'connected')


def wait_log(daemon, text):
    wait_until(lambda: text in daemon.log(), 10, f'{text!r} in the log')
    return daemon.log()


def test_events_and_the_journal_tell_of_an_outage_and_wait_for_nobody(guest, server):
    guest.run(['mkdir', '-p', '/run/systemd/journal', '/run/log/journal'])
    guest.run(['mount', '-t', 'cgroup2', 'none', '/sys/fs/cgroup'])     # the journal asks
    journald = guest.spawn(['/lib/systemd/systemd-journald'])
    wait_until(lambda: 'socket' in guest.list('/run/systemd/journal'))
    with Daemon(guest, env={'JOURNAL_STREAM': '1:1'}) as daemon:
        follow = guest.spawn(daemon.ctl_argv('events', '--json'))
        wait_until(lambda: daemon.attach(server.uri, name='b') and daemon.detach('b') and
                   follow.output)           # until it follows
        device = daemon.attach(server.uri, name='a')
        # The journal takes nothing for a while; nbdd goes on.
        journald.kill(signal.SIGSTOP)
        for _ in range(12):
            since = daemon.status('a')['connections'][0]['since']
            daemon.ctl('reconnect', 'a')
            wait_until(lambda: daemon.status('a')['connections'][0]['since'] > since, 20)
        wait_until(lambda: follow.output.count('"reconnected"') >= 12)
        journald.kill(signal.SIGCONT)
        server.kill()
        daemon.wait_state('a', 'reconnecting')
        # One that is replaced is followed further.
        daemon.replace()
        server.start()
        daemon.wait_state('a', 'connected')
        wait_until(lambda: follow.output.count('"reconnected"') >= 13)
        daemon.detach('a')
        wait_until(lambda: '"detached"' in follow.output.splitlines()[-1])
        events = [json.loads(line) for line in follow.output.splitlines()]
        assert sum(e['lost'] for e in events) == 0
        mine = [e['event'] for e in events if e['event']['name'] == 'a']
        kinds = [e['event'] for e in mine]
        assert kinds[:3] == ['attached', 'outage', 'reconnected'] and kinds[-1] == 'detached'
        assert {e['device'] for e in mine} == {device}
        follow.kill()
        follow.wait()

        def entries():
            out = guest.run(['journalctl', '-D', '/run/log/journal', '-o', 'json', '-q',
                             'NBDD_NAME=a'], timeout=60).out
            return [json.loads(line) for line in out.splitlines()]
        found = wait_until(lambda: [e for e in [entries()] if e and
                                    e[-1]['NBDD_EVENT'] == 'detached'], 30)[0]
        assert [e['NBDD_EVENT'] for e in found if e['NBDD_EVENT'] != 'adopted'] == \
            [k for k in kinds if k != 'adopted']
        numbers = test_events.kinds()
        for e in found:
            assert e['MESSAGE_ID'] == numbers[e['NBDD_EVENT']][0]
            assert e['NBDD_DEVICE'] == device and e['MESSAGE'].startswith('a: ')
            assert (e['SYSLOG_IDENTIFIER'], e['_COMM']) == ('nbdd', 'nbdd')
    journald.kill()
    journald.wait()
    guest.run(['umount', '/sys/fs/cgroup'])


def test_the_screen_shows_rate_latency_and_outages_of_devices_by_trouble(guest, daemon, server):
    busy = daemon.attach(server.uri, name='busy')
    load = guest.spawn(['sh', '-c', f'while :; do dd if={busy} of=/dev/null bs=64k iflag=direct; '
                        'done 2>/dev/null'])
    with Nbdkit(guest) as other, \
            Window(guest, daemon.ctl_argv('status', '--watch'), 80) as window:
        away = daemon.attach(other.uri, name='away')

        def row(name):
            return next((line for line in window.lines() if f' {name} ' in line), '')
        wait_until(lambda: re.search(r' connected +[\d.]+ \w?i?B/s.*[▁▂▃▄▅▆▇█]', row('busy')), 20)
        assert window.alternate()
        other.kill()
        daemon.wait_state('away', 'reconnecting')
        # What has no server comes first, and says why; its outage has a bar.
        wait_until(lambda: re.search(r'reconnecting .* 1 .*█', row('away')), 20)
        for columns in (80, 200):
            window.resize(columns, 24)
            wait_until(lambda: max(map(len, window.lines())) > columns - 8, 20)
            # Requests were answered in the last second, not only their program started.
            lines = wait_until(lambda: re.search(r' [\d.]+ [um]?s ', row('busy')) and
                               window.lines(), 20)
            assert max(map(len, lines)) <= columns
            assert lines[0].startswith('2 devices, 1 not connected, ')
            assert lines[1].split()[:5] == ['DEVICE', 'NAME', 'STATE', 'RATE', '2']
            assert lines[2].split()[:3] == [away[5:], 'away', 'reconnecting']
            assert 'the server is away and I/O waits' in lines[3]
            assert lines[4].split()[:3] == [busy[5:], 'busy', 'connected']
        window.type('q')
        wait_until(lambda: 'status 0' in window.lines() and not window.alternate(), 20)
    load.kill(signal.SIGKILL, group=True)
    load.wait()
    daemon.detach('away', '--force')


def disposing(guest):
    """The states of the processes that let go what nbdd must not."""
    return [state for name, state, _ in guest.processes().values() if name == 'dispose']


def test_descriptors_that_a_user_sends_hold_nbdd_up_nowhere(guest, daemon, server):
    """The last close of each waits for years: nbdd's own must not be that."""
    daemon.attach(server.uri, name='a')
    wait_until(lambda: not guest.children(daemon.pid))
    own = descriptors(guest, daemon.pid)
    ways = ['with_a_byte', 'out_of_band', 'left_unread']
    for clients, said in (0, 'it sent a descriptor'), (224, 'refused a client'):
        sent = guest.python('tests.control.rights:send', path=daemon.socket, pid=daemon.pid,
                            ways=ways, clients=clients)
        assert sent == [True] * 3, 'this kernel takes none (SO_PASSRIGHTS)'
        answers_at_once(daemon, 'connected')
        wait_until(lambda s=said: daemon.log().count(s) == len(ways), 10)
        answers_at_once(daemon, 'connected')
        # Nothing is left of them, nor of the processes that had them.
        wait_until(lambda n=clients: len(guest.list(f'/proc/{daemon.pid}/fd')) == own + n, 10)
        wait_until(lambda: not disposing(guest), 10)
    guest.python('tests.control.rights:let_go')
    daemon.detach('a')


def answers_at_once(daemon, state):
    watch = Stopwatch()
    assert daemon.state('a') == state and watch.quiet() < 2


def test_a_deleted_file_on_a_device_that_is_away_holds_up_a_process_made_for_it(
        guest, daemon, server):
    device = daemon.attach(server.uri, name='a')
    guest.run(['mkfs.ext4', '-q', device])
    guest.run(['mount', '-o', 'sync', device, '/mnt'])     # its deletion waits for the disk
    # More of them than processes at a time.
    fds = guest.python('tests.control.rights:delete_files', files=[f'/mnt/{n}' for n in range(20)])
    server.kill()
    daemon.wait_state('a', 'reconnecting')
    guest.python('tests.control.rights:send_deleted', path=daemon.socket, fds=fds)
    wait_until(lambda: disposing(guest) == 16 * ['D'], 60)
    answers_at_once(daemon, 'reconnecting')
    # Its end waits for none of them, and so the next one does not.
    own = daemon.pid
    daemon.replace()
    assert own not in guest.processes()
    answers_at_once(daemon, 'reconnecting')
    wait_until(lambda: disposing(guest) == 20 * ['D'], 60)
    server.start()
    daemon.wait_state('a', 'connected')
    wait_until(lambda: not disposing(guest), 10)
    guest.python('tests.control.rights:let_go')
    guest.run(['umount', '/mnt'])
    daemon.detach('a')
