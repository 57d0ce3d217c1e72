"""Many devices: they come back together, and cost little."""
import re

import pytest

from tests.harness.daemon import Daemon
from tests.harness.wait import Stopwatch, wait_until
from tests.kernel.cost import KIB_OF_MANY, Cost, all_connected, idle_wake_ups
from tests.kernel.disk import file_server

pytestmark = pytest.mark.guest
KIB_OF_256 = 64 << 10
# What a server's restart may cost in processes: attempts while it is away, then all at once.
FORKS_MAX = 40


def forks(guest):
    return int(re.search(r'^processes (\d+)', guest.read('/proc/stat'), re.M).group(1))


def exports(server, count):
    return ''.join(f'nbd{n} 127.0.0.1 e{n} port={server.port},connections=1,auto\n'
                   for n in range(count))


def count(daemon, text):
    return sum(text in line for line in daemon.log().splitlines())


def come_back(boot, devices, rss_max, patience):
    guest = boot(nbds_max=devices, memory='768M' if devices > 64 else '512M')
    with file_server(guest, 'many', megabytes=64) as server, \
            Daemon(guest, nbdtab=exports(server, devices)) as daemon:
        # To ask for the status costs as much of the guest's one CPU as connecting.
        wait_until(lambda: count(daemon, 'attached as') == devices, patience, 'devices', 1)
        assert {d['device'] for d in daemon.status()} == \
            {f'/dev/nbd{n}' for n in range(devices)}
        wait_until(lambda: not guest.children(daemon.pid))
        before, at_first = Cost(guest, daemon), forks(guest)
        server.restart()
        watch = Stopwatch()
        wait_until(lambda: count(daemon, 'reconnected after') == devices, patience,
                   'all to be back', 0.1)
        seconds = watch()
        wait_until(all_connected(daemon, devices, 1), 30, 'all to be well', 1)
        wait_until(lambda: not guest.children(daemon.pid))
        after, made = Cost(guest, daemon), forks(guest) - at_first
        print(f'{devices} devices back {seconds:.2f} s after their server; {made} processes and '
              f'threads, of which nbdkit has one for each; {before}, {after}')
        assert after.rss <= rss_max and after.fds == before.fds
        assert idle_wake_ups(guest, daemon) <= 1
        for n in (0, devices - 1):
            guest.run(['dd', f'if=/dev/nbd{n}', 'of=/dev/null', 'bs=64k', 'count=1',
                       'iflag=direct'])
        daemon.crash()          # to detach them takes longer than all the rest
        return made - devices


def test_64_devices_all_come_back_from_one_restart_of_their_server(boot):
    assert come_back(boot, 64, KIB_OF_MANY, 120) <= FORKS_MAX


@pytest.mark.soak
def test_256_devices_all_come_back_from_one_restart_of_their_server(boot):
    come_back(boot, 256, KIB_OF_256, 600)
