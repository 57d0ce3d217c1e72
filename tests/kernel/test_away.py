"""While a device is away, which may be the root filesystem's, nbdd needs no file of a disk."""
import re

import pytest

from tests.harness.daemon import Daemon
from tests.harness.wait import wait_until
from tests.kernel.disk import file_server

pytestmark = pytest.mark.guest
ATTEMPTS = 100
TRACED = 25             # of these with strace, which is slow


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
        before = faults(guest, daemon.pid)
        wait_until(lambda: attempts(daemon) - first >= ATTEMPTS, 60, 'attempts', 1)
        after = faults(guest, daemon.pid)
        print('faults (minor, of children; major, of children)', before, after,
              'attempts', attempts(daemon) - first)
        assert after[2:] == before[2:], 'no major fault, neither of nbdd nor of its children'
        strace = guest.spawn(['strace', '-f', '-qq', '-p', daemon.pid, '-o', trace, '-e',
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


def test_a_clock_that_is_set_disturbs_nobody(guest):
    with file_server(guest, 'clock') as server, Daemon(guest) as daemon:
        daemon.attach(server.uri, name='clock')
        before = daemon.status('clock')['connections']
        guest.run(['date', '-s', '2031-01-01'])
        wait_until(lambda: daemon.status('clock')['io'])
        s = daemon.status('clock')
        assert (s['state'], s['outages']['count']) == ('connected', 0)
        assert s['connections'][0]['since'] == before[0]['since']
        assert 'suspended' not in daemon.log()
        daemon.detach('clock')
