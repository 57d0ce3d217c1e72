"""Many restarts of a server: nothing grows."""
import pytest

from tests.harness.daemon import Daemon
from tests.harness.wait import wait_until
from tests.kernel.cost import KIB_OF_ONE, NOISE, Cost, all_connected, idle_wake_ups
from tests.kernel.disk import file_server

pytestmark = pytest.mark.guest


@pytest.mark.parametrize('restarts', [40, pytest.param(100, marks=pytest.mark.soak)])
def test_restarts_of_the_server_let_nothing_grow(guest, restarts):
    with file_server(guest, 'one') as server, Daemon(guest) as daemon:
        daemon.attach(server.uri, name='one', connections=2, reconnect_delay_max='200ms')
        wait_until(lambda: not guest.children(daemon.pid))
        assert Cost(guest, daemon).rss <= KIB_OF_ONE, Cost(guest, daemon)
        assert idle_wake_ups(guest, daemon) <= 1
        costs = []
        for n in range(1, restarts + 1):
            server.restart()
            wait_until(all_connected(daemon, 1, n), 15, f'the device after restart {n}',
                       0.05)
            wait_until(lambda: not guest.children(daemon.pid), 10, 'every child to end')
            if n % 10 == 0:
                costs.append(Cost(guest, daemon))
        print(*costs, sep='\n')
        first, last = costs[1], costs[-1]
        assert last.rss <= first.rss + NOISE, costs
        assert last.fds <= first.fds and last.threads <= first.threads, costs
        assert last.rss <= KIB_OF_ONE
        daemon.detach('one')
