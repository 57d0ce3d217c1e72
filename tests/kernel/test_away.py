"""While a device is away, which may be the root filesystem's, nbdd needs no file of a disk."""
import contextlib
import re
import signal

import pytest

from tests.harness.daemon import Daemon
from tests.harness.wait import Stopwatch, wait_until
from tests.harness.workload import Workload
from tests.kernel.disk import file_server

pytestmark = pytest.mark.guest
ATTEMPTS = 100
YEAR = 365 * 86400
TRACED = 25             # of these with strace, which is slow


@pytest.fixture(scope='module')
def guest(boot):
    return boot(suspends=True)


def faults(guest, pid):
    """Minor and major page faults of PID, and of its children that have ended."""
    fields = guest.read(f'/proc/{pid}/stat').rsplit(')', 1)[1].split()
    return [int(fields[n]) for n in (7, 8, 9, 10)]


def attempts(daemon):
    return daemon.status('away')['retry']['attempts']


def test_100_attempts_open_no_file_and_fault_no_page_in_from_a_disk(guest):
    with file_server(guest, 'away') as server, Daemon(guest) as daemon:
        # By name: resolving it anew must not be needed either.
        daemon.attach(server.uri, name='away', reconnect_delay='10ms',
                      reconnect_delay_max='10ms')
        trace = '/tmp/away.strace'
        server.kill()
        daemon.wait_state('away', ('reconnecting', 'refused'))
        first = attempts(daemon)
        guest.run(['sh', '-c', 'echo 3 > /proc/sys/vm/drop_caches'])
        spawner = daemon.spawner
        before = faults(guest, daemon.pid) + faults(guest, spawner)
        wait_until(lambda: attempts(daemon) - first >= ATTEMPTS, 60, 'attempts', 1)
        after = faults(guest, daemon.pid) + faults(guest, spawner)
        print('faults (minor, of children; major, of children; the spawner\'s)', before, after,
              'attempts', attempts(daemon) - first)
        assert after[2:4] + after[6:] == before[2:4] + before[6:], \
            'no major fault, neither of nbdd nor of the spawner nor of their children'
        strace = guest.spawn(['strace', '-f', '-qq', '-p', daemon.pid, '-p', spawner, '-o',
                              trace, '-e',
                              'trace=open,openat,openat2,creat,execve,clone,clone3,fork'])
        # To ask for the status would open what it shows of the device.
        wait_until(lambda: len(re.findall(r'clone|fork', guest.read(trace))) >= TRACED, 120,
                   'connectors', 1)
        strace.kill(2)
        strace.wait()
        server.start()
        daemon.wait_state('away', 'connected')
        opened = [line for line in guest.read(trace).splitlines()
                  if re.search(r' (open\w*|creat|execve)\(', line)]
        assert not opened, opened[:20]
        daemon.detach('away')


def test_states_are_held_where_swap_cannot_take_them(guest):
    """Their pages are a tmpfs's: written out to a swap that is away, they could not be
    written again."""
    with file_server(guest, 'held') as server, Daemon(guest) as daemon:
        daemon.attach(server.uri, name='held')
        server.kill()
        daemon.wait_state('held', ('reconnecting', 'refused'))
        smaps = guest.read(f'/proc/{daemon.pid}/smaps')
        held = re.findall(rf'^\S+ r--s .*{daemon.runtime_dir}/devices/\.?held\nSize: +(\d+) kB\n'
                          r'(?:(?!Locked).*\n)*Locked: +(\d+) kB', smaps, re.M)
        assert len(held) == 2 and all(size == locked for size, locked in held), smaps
        server.start()
        daemon.wait_state('held', 'connected')
        daemon.detach('held')
        assert '/devices/' not in guest.read(f'/proc/{daemon.pid}/smaps')


def clock_timer(guest, pid):
    """In how many seconds the timer ends that tells PID of a clock that is set (proc(5))."""
    for n in guest.proc_fds(pid):
        with contextlib.suppress(FileNotFoundError):    # it was there for a moment
            info = guest.read(f'/proc/{pid}/fdinfo/{n}')
            if 'settime flags: 03' in info:
                return int(re.search(r'it_value: \((\d+),', info).group(1))
    raise AssertionError('nbdd has no such timer')


def test_a_clock_that_is_set_disturbs_nobody(guest):
    with file_server(guest, 'clock') as server, Daemon(guest) as daemon:
        daemon.attach(server.uri, name='clock')
        before = daemon.status('clock')['connections']
        guest.run(['date', '-s', '2041-01-01'])         # later than 32 bits can say
        wait_until(lambda: daemon.status('clock')['io'])
        s = daemon.status('clock')
        assert (s['state'], s['outages']['count']) == ('connected', 0)
        assert s['connections'][0]['since'] == before[0]['since']
        assert 'suspended' not in daemon.log()
        assert clock_timer(guest, daemon.pid) > YEAR, 'one that is over would keep it busy'
        daemon.detach('clock')


def suspend(guest, writer, seconds):
    """With the writer stopped: the server that it would wait for is frozen first."""
    writer.process.kill(signal.SIGSTOP, group=True)
    wait_until(lambda: 'verifier' not in guest.in_d_state())
    guest.suspend(seconds)
    writer.process.kill(signal.SIGCONT, group=True)


def test_connections_are_made_anew_at_once_after_a_suspend(guest):
    with file_server(guest, 'asleep') as server, Daemon(guest) as daemon:
        device = daemon.attach(server.uri, name='asleep', keepalive_timeout='5s')
        writer = Workload(guest, device, size='16M', direct=True).start()
        # A server has patience for so long: nothing is done.
        suspend(guest, writer, 2)
        wait_until(lambda: 'the machine was suspended for 2' in daemon.log())
        assert daemon.status('asleep')['outages']['count'] == 0
        suspend(guest, writer, 6)
        watch = Stopwatch()
        wait_until(lambda: daemon.status('asleep')['outages']['count'] == 1)
        s = daemon.wait_state('asleep', 'connected')
        last = s['outages']['last']
        print(last)
        assert last['reason'].endswith('lost: the machine was suspended')
        assert watch.quiet_part(last['duration_usec'] / 1e6) < 4
        done = writer.ops()
        wait_until(lambda: writer.ops() > done + 100, 20, 'the writer to go on')
        writer.finish()
        daemon.detach('asleep')
