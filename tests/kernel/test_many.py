"""Many devices, many restarts: everything comes back, and nothing grows."""
import time

import pytest

from tests.harness.daemon import Daemon
from tests.harness.wait import wait_until
from tests.kernel.disk import file_server

pytestmark = pytest.mark.guest
DEVICES = 64
RESTARTS = 100
KIB_OF_ONE, KIB_OF_MANY = 16 << 10, 32 << 10
IDLE_SECONDS = 10
# kB by which the resident size may differ between two looks without anything growing.
NOISE = 256


@pytest.fixture(scope='module')
def guest(boot):
    return boot(nbds_max=DEVICES, memory='512M')


class Cost:
    """What the daemon uses at this moment."""

    def __init__(self, guest, daemon):
        status = guest.proc_status(daemon.pid)
        self.rss = int(status['VmRSS'])
        self.fds = len(guest.proc_fds(daemon.pid))
        self.children = len(guest.children(daemon.pid))
        self.threads = int(status['Threads'])

    def __repr__(self):
        return f'{self.rss} KiB, {self.fds} fds, {self.children} children, {self.threads} threads'


def wake_ups(guest, pid):
    """How often the process's threads have been put on the CPU, in all."""
    total = 0
    for task in guest.list(f'/proc/{pid}/task'):
        text = guest.read(f'/proc/{pid}/task/{task}/status')
        total += sum(int(line.split()[1]) for line in text.splitlines()
                     if 'ctxt_switches' in line)
    return total


def idle_wake_ups(guest, daemon):
    """Wake-ups in IDLE_SECONDS during which nobody asks anything."""
    before = wake_ups(guest, daemon.pid)
    time.sleep(IDLE_SECONDS)            # the length of the measurement
    return wake_ups(guest, daemon.pid) - before


def all_connected(daemon, count, outages=None):
    def reached():
        devices = daemon.status()
        states = [d['state'] for d in devices]
        assert len(devices) == count and set(states) == {'connected'}, \
            {s: states.count(s) for s in set(states)}
        if outages is not None:
            assert {d['outages']['count'] for d in devices} == {outages}
        return devices
    return reached


def test_100_restarts_of_the_server_let_nothing_grow(guest):
    with file_server(guest, 'one') as server, Daemon(guest) as daemon:
        daemon.attach(server.uri, name='one', connections=2, reconnect_delay_max='200ms')
        wait_until(lambda: not guest.children(daemon.pid))
        assert Cost(guest, daemon).rss <= KIB_OF_ONE, Cost(guest, daemon)
        assert idle_wake_ups(guest, daemon) <= 1
        costs = []
        for n in range(1, RESTARTS + 1):
            server.restart()
            wait_until(all_connected(daemon, 1, n), 15, f'the device after restart {n}')
            wait_until(lambda: not daemon.zombies(), 2, 'every child to be reaped')
            if n % 10 == 0:
                costs.append(Cost(guest, daemon))
        print(*costs, sep='\n')
        first, last = costs[1], costs[-1]
        assert last.rss <= first.rss + NOISE, costs
        assert (last.fds, last.children, last.threads) == \
            (first.fds, first.children, first.threads), costs
        assert last.rss <= KIB_OF_ONE
        daemon.detach('one')


def test_64_devices_all_come_back_from_one_restart_of_their_server(guest):
    with file_server(guest, 'many', megabytes=64) as server:
        table = ''.join(f'nbd{n} 127.0.0.1 "" port={server.port},connections=1,auto\n'
                        .replace('""', f'e{n}') for n in range(DEVICES))
        with Daemon(guest, nbdtab=table) as daemon:
            devices = wait_until(all_connected(daemon, DEVICES), 60, '64 devices')
            assert {d['device'] for d in devices} == {f'/dev/nbd{n}' for n in range(DEVICES)}
            wait_until(lambda: not guest.children(daemon.pid))
            before = Cost(guest, daemon)
            assert before.rss <= KIB_OF_MANY, before
            for n in (1, 2):
                server.restart()
                wait_until(all_connected(daemon, DEVICES, n), 60, 'all 64 to be back')
            wait_until(lambda: not guest.children(daemon.pid))
            after = Cost(guest, daemon)
            print(before, after, sep='\n')
            assert after.rss <= KIB_OF_MANY and after.fds == before.fds
            assert idle_wake_ups(guest, daemon) <= 1
            for n in (0, DEVICES - 1):
                guest.run(['dd', f'if=/dev/nbd{n}', 'of=/dev/null', 'bs=64k', 'count=1',
                           'iflag=direct'])
            for d in devices:
                daemon.detach(d['device'])
            assert daemon.status() == []
