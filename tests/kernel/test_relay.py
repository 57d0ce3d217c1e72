"""Encrypted devices where the kernel cannot do TLS: a relay carries the data, and its death is
that of any connection."""
import random
import signal
import time

import pytest

from tests.harness.daemon import Daemon
from tests.harness.wait import Stopwatch, wait_until
from tests.harness.workload import Workload
from tests.kernel.disk import mounted
from tests.kernel.tls_guest import Misbehaving, cut_server, install, nbds, tls_server

pytestmark = pytest.mark.guest
CIPHERS = ('AES-128-GCM', 'AES-256-GCM', 'CHACHA20-POLY1305')
# PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE of linux/sched.h: what PR_SET_IO_FLUSHER sets.
IO_FLUSHER = 0x180000


@pytest.fixture(scope='module')
def at(guest):
    return install(guest)


@pytest.fixture(scope='module')
def daemon(guest):
    with Daemon(guest) as d:
        yield d


def attach(daemon, server, at, name, kernel_tls='off', **keys):
    return daemon.attach(nbds(server), name=name, tls_certificates=f'{at}/pki/client',
                         kernel_tls=kernel_tls, **keys)


def relays(daemon, name):
    """The pids of the device's relays, once every connection has one."""
    def there():
        pids = [c['relay'] for c in daemon.status(name)['connections']]
        return pids if all(pids) else None
    return wait_until(there, 10, 'a relay', 0.1)


def outage(daemon, name, number, act):
    """ACT is the cause of the NUMBER-th outage; what the daemon says that it was."""
    act()
    return wait_until(lambda: daemon.status(name)['outages']['count'] >= number and
                      daemon.status(name)['outages']['last']['reason'], 10, 'the outage')


class Process:
    """What the kernel says of a process."""

    def __init__(self, guest, pid):
        stat = guest.read(f'/proc/{pid}/stat').rsplit(')', 1)[1].split()
        self.status = guest.proc_status(pid)
        self.session, self.flags = int(stat[3]), int(stat[6])
        self.minor_faults, self.major_faults = int(stat[7]), int(stat[9])
        self.fds = len(guest.proc_fds(pid))

    def kib(self, name):
        return int(self.status[name].split()[0])


@pytest.mark.parametrize('version', ['1.3', '1.2'])
@pytest.mark.parametrize('cipher', CIPHERS)
def test_a_filesystem_survives_its_server_and_its_relay(guest, daemon, at, version, cipher):
    chance = random.Random(version + cipher)
    with tls_server(guest, at, 'survives', options=['--tls-verify-peer']) as server:
        device = attach(daemon, server, at, 'survives', connections=1, tls_priority='NORMAL:'
                        f'-VERS-ALL:+VERS-TLS{version}:-CIPHER-ALL:+{cipher}')
        tls = daemon.status('survives')['tls']
        assert (tls['version'], tls['cipher']) == (f'TLS{version}', cipher)
        assert not tls['in_kernel'] and tls['why_not_in_kernel'] == 'kernel-tls is off'

        def kill_relay():
            guest.kill(relays(daemon, 'survives')[0], signal.SIGKILL)
        with mounted(guest, device) as mount:
            w = Workload(guest, f'{mount}/file', size='2M', jobs=2, direct=True,
                         rests=True).start()
            for number, act in enumerate((kill_relay, server.restart, kill_relay), 1):
                done = w.ops()
                wait_until(lambda n=done + chance.randrange(200): w.ops() >= n, 10)
                why = outage(daemon, 'survives', number, act)
                assert act != kill_relay or 'the relay process died' in why
                w.wait_flowing(10)
            w.finish()
        assert daemon.status('survives')['outages']['count'] == 3
        daemon.detach('survives')
        wait_until(lambda: not guest.children(daemon.pid), 10, 'every relay to end')
        assert 'I/O error' not in guest.dmesg()


def test_a_relay_has_no_power_and_needs_nothing_while_it_works(guest, daemon, at):
    with tls_server(guest, at, 'steady', socket=f'{guest.path}/steady.sock') as server:
        device = attach(daemon, server, at, 'steady', kernel_tls='auto', connections=1)
        status = daemon.status('steady')
        assert status['tls']['why_not_in_kernel'] == 'its TLS is for TCP alone'
        pid = relays(daemon, 'steady')[0]
        wait_until(lambda: guest.proc_status(pid)['Name'] == 'relay steady')

        def work():
            for how in (f'if=/dev/zero of={device} oflag=direct',
                        f'if={device} of=/dev/null iflag=direct'):
                guest.run(['dd', *how.split(), 'bs=256k', 'count=100'], timeout=60)
        work()
        before = Process(guest, pid)
        work()
        after = Process(guest, pid)
        assert after.minor_faults == before.minor_faults and after.major_faults == 0
        assert (after.fds, after.kib('VmRSS')) == (before.fds, before.kib('VmRSS'))
        # /dev/null three times, both sockets, the way to nbdd, and where it is marked.
        assert after.fds == 7
        assert after.kib('VmLck') >= after.kib('VmRSS') - 64, 'locked'
        assert after.kib('RssAnon') < 4096, 'what it has for itself'
        assert after.flags & IO_FLUSHER == IO_FLUSHER
        assert after.session == pid
        s = after.status
        assert '0' not in s['Uid'].split() and int(s['CapBnd'], 16) == int(s['CapEff'], 16) == 0
        assert (s['NoNewPrivs'], s['Seccomp'], s['Threads']) == ('1', '2', '1')
        assert guest.read(f'/proc/{pid}/oom_score_adj').strip() == '-1000'
        assert guest.list(f'/proc/{pid}/root/') == []
        daemon.detach('steady')


# A server that does this, and what is said of it.
MISBEHAVIOUR = {
    'key-update': 'the server changed its TLS key (KeyUpdate)',
    'alert': 'the server sent the TLS alert',
    'bye': 'the server closed the connection',
    'garbage': 'the server sent something that is no TLS record',
    'garbage-record': 'the server sent a TLS record that is not authentic',
    'giant-record': 'the server sent a TLS record longer than allowed',
    'half': 'the server hung up in the middle of a TLS record',
    'plain': 'the server sent something that is no TLS record',
}


def test_a_server_that_breaks_tls_off_costs_a_connection_and_nothing_else(guest, daemon, at):
    with Misbehaving(guest, at, 'broken') as server:
        device = attach(daemon, server, at, 'broken', reconnect_delay_max='500ms')
        w = Workload(guest, device, size='2M', jobs=2, direct=True, rests=True).start()
        server.do('ticket')
        wait_until(server.done, 10)
        w.wait_flowing(10)
        assert daemon.status('broken')['outages']['count'] == 0, 'a ticket is read over'
        for number, (word, reason) in enumerate(MISBEHAVIOUR.items(), 1):
            why = outage(daemon, 'broken', number, lambda word=word: server.do(word))
            assert reason in why, word
            w.wait_flowing(10)
            assert server.done(), word
        w.finish()
        daemon.detach('broken')
    assert 'I/O error' not in guest.dmesg()


def test_a_detach_is_a_goodbye_to_the_server(guest, daemon, at):
    with tls_server(guest, at, 'goodbye', options=['-v']) as server:
        device = attach(daemon, server, at, 'goodbye')
        guest.run(['dd', 'if=/dev/zero', f'of={device}', 'bs=64k', 'count=16'])
        said = [line for line in server.process.output.splitlines() if 'NBD_CMD_DISC' in line]
        daemon.detach('goodbye')
        wait_until(lambda: server.process.output.count('client sent NBD_CMD_DISC'), 10, 'it')
        assert not said


def test_a_dead_peer_is_noticed_and_a_slow_one_left_alone(guest, daemon, at):
    with tls_server(guest, at, 'gone') as server:
        device = attach(daemon, server, at, 'gone', keepalive='1s', keepalive_timeout='3s')
        assert all(c['rtt_usec'] for c in daemon.status('gone')['connections'])
        w = Workload(guest, device, size='2M', jobs=2, direct=True).start()
        server.stop()                       # it hangs, and all buffers fill
        w.wait_stuck(1000)
        server.cont()
        w.wait_flowing(10)
        assert daemon.status('gone')['outages']['count'] == 0
        guest.run(['ip', 'link', 'set', 'lo', 'down'])
        watch = Stopwatch()
        daemon.wait_state('gone', 'reconnecting', timeout=10)
        assert watch.quiet() < 6
        guest.run(['ip', 'link', 'set', 'lo', 'up'])
        w.wait_flowing(10)
        assert 'timed out' in daemon.status('gone')['outages']['last']['reason']
        w.finish()
        daemon.detach('gone')


def test_a_key_is_changed_before_it_is_used_up(guest, at):
    with Daemon(guest, env={'NBDD_TLS_RECORDS': '800'}) as d, \
            tls_server(guest, at, 'key') as server:
        device = attach(d, server, at, 'key', connections=1,
                        tls_priority='NORMAL:-CIPHER-ALL:+AES-256-GCM')
        w = Workload(guest, device, size='2M', jobs=2, direct=True).start()
        wait_until(lambda: d.status('key')['outages']['count'] >= 2, 40, 'two new keys', 0.2)
        assert 'its TLS key was used for long enough' in \
            d.status('key')['outages']['last']['reason']
        w.wait_flowing(10)
        w.finish()
        d.detach('key')


def test_relays_go_on_without_the_daemon_and_end_with_the_device(guest, at):
    with cut_server(guest, at, 'alone') as server:
        d = Daemon(guest).start()
        device = attach(d, server, at, 'alone', connections=2)
        pids = relays(d, 'alone')
        w = Workload(guest, device, size='4M', jobs=2, direct=True).start()
        d.process.kill(signal.SIGKILL, group=True)
        d.process.wait()
        w.wait_flowing(10)
        assert all(guest.exists(f'/proc/{pid}') for pid in pids)
        # The next one takes the device over, and knows its relays.
        d.start()
        before = d.wait_state('alone', 'connected')
        assert before['outages']['count'] == 0 and not before['tls']['in_kernel']
        assert [c['relay'] for c in before['connections']] == pids
        w.wait_flowing(10)
        w.finish()
        # One that dies costs its own connection, and no other.  (Idle: with two connections
        # a request in flight would wait for half a minute.)
        guest.kill(pids[1], signal.SIGKILL)

        def replaced():
            first, second = d.status('alone')['connections']
            assert second['relay'] and second['relay'] != pids[1]
            return first, second
        first, second = wait_until(replaced, 10)
        assert (first['relay'], first['since']) == (pids[0], before['connections'][0]['since'])
        assert d.status('alone')['outages']['count'] == 0
        assert 'lost: its relay process has ended' in d.log()
        # One whose descriptor is lost can be ended.
        d.ctl('reconnect', 'alone')
        wait_until(lambda: not guest.exists(f'/proc/{pids[0]}'), 10, 'the relay to end')
        old = {pids[0], second['relay']}
        pids = wait_until(lambda: old.isdisjoint(new := relays(d, 'alone')) and new, 10)
        guest.run(['dd', f'if={device}', 'of=/dev/null', 'bs=1M', 'count=4', 'iflag=direct'])
        d.detach('alone')
        wait_until(lambda: not any(guest.exists(f'/proc/{pid}') for pid in pids), 10,
                   'the relays to end')
        d.close()
        assert 'I/O error' not in guest.dmesg()


def test_a_kernel_without_tls_is_told_of(guest, daemon, at):
    wait_until(lambda: guest.run(['busybox', 'rmmod', 'tls']), 20)
    with tls_server(guest, at, 'without') as server:
        r = daemon.ctl('attach', nbds(server), '--name=without', '--kernel-tls=require',
                       f'--tls-certificates={at}/pki/client', check=False)
        assert r.rc != 0 and "its module tls is not loaded" in r.out
        device = attach(daemon, server, at, 'without', kernel_tls='auto')
        tls = daemon.status('without')['tls']
        assert not tls['in_kernel'] and tls['why_not_in_kernel'] == 'its module tls is not loaded'
        assert 'relayed by process' in daemon.ctl('status', 'without').out
        guest.run(['dd', f'if={device}', 'of=/dev/null', 'bs=1M', 'count=4', 'iflag=direct'])
        daemon.detach('without')


@pytest.mark.soak
def test_20_kills_of_the_server_and_100_of_the_relay_at_random_instants(guest, at):
    """Also in the midst of a new connection: only at the end is anything waited for."""
    chance = random.Random(20)
    acts = ['server'] * 20 + ['relay'] * 100
    chance.shuffle(acts)
    done = {'server': 0, 'relay': 0}
    with Daemon(guest) as daemon, cut_server(guest, at, 'random') as server:
        device = attach(daemon, server, at, 'random', connections=1, reconnect_delay='20ms',
                        reconnect_delay_max='500ms')
        with mounted(guest, device) as mount:
            w = Workload(guest, f'{mount}/file', size='8M', jobs=2, direct=True).start()
            for act in acts:
                time.sleep(chance.random() ** 2 * 2)
                if act == 'server':
                    server.restart()
                else:
                    # One that is not in the kernel yet is killed, too.
                    pid = wait_until(lambda: next((p for p, (name, *_) in
                                                   guest.processes().items()
                                                   if name == 'relay random'), None), 20)
                    guest.kill(pid, signal.SIGKILL)
                done[act] += 1
            w.wait_flowing(30)
            w.finish(timeout=120)
            print(f'{done}: {w.ops()} operations,', daemon.status('random')['outages'])
        assert done == {'server': 20, 'relay': 100}
        daemon.detach('random')
        wait_until(lambda: not guest.children(daemon.pid), 20, 'every relay to end')
    assert 'I/O error' not in guest.dmesg()
