"""Many devices: they come back together, and cost little."""
import pytest

from tests.harness.daemon import Daemon
from tests.harness.wait import wait_until
from tests.kernel.cost import KIB_OF_MANY, Cost, all_connected, idle_wake_ups
from tests.kernel.disk import file_server

pytestmark = pytest.mark.guest
DEVICES = 64


@pytest.fixture(scope='module')
def guest(boot):
    return boot(nbds_max=DEVICES, memory='512M')


def test_64_devices_all_come_back_from_one_restart_of_their_server(guest):
    with file_server(guest, 'many', megabytes=64) as server:
        table = ''.join(f'nbd{n} 127.0.0.1 "" port={server.port},connections=1,auto\n'
                        .replace('""', f'e{n}') for n in range(DEVICES))
        with Daemon(guest, nbdtab=table) as daemon:
            devices = wait_until(all_connected(daemon, DEVICES), 120, '64 devices', 1)
            assert {d['device'] for d in devices} == {f'/dev/nbd{n}' for n in range(DEVICES)}
            wait_until(lambda: not guest.children(daemon.pid))
            before = Cost(guest, daemon)
            assert before.rss <= KIB_OF_MANY, before
            server.restart()
            # Looking costs as much of the guest's one CPU as connecting: so not often.
            wait_until(all_connected(daemon, DEVICES, 1), 120, 'all 64 to be back', 1)
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
