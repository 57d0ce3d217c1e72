"""nbdd --replace: another one takes over from the one that runs, without a gap."""
import random
import signal
import time

import pytest

from tests.harness.daemon import Daemon
from tests.harness.service import Service
from tests.harness.wait import wait_until
from tests.harness.workload import Workload
from tests.kernel.cost import all_connected, descriptors
from tests.kernel.disk import TWO, file_server

pytestmark = pytest.mark.guest


@pytest.fixture
def server(guest):
    with file_server(guest, 'handover') as s:
        yield s


def test_everything_goes_over_and_nothing_grows(guest, server):
    with Daemon(guest) as daemon:
        device = daemon.attach(server.uri, name='one', reconnect_delay='20ms', **TWO)
        daemon.attach(server.uri, name='two', dead_timeout='30s')
        writer = Workload(guest, device, size='16M', direct=True).start()
        server.restart()
        before = wait_until(all_connected(daemon, 2, 1), 40)
        daemon.replace()        # what it needs to take over it keeps
        wait_until(lambda: not guest.children(daemon.pid))
        fds = descriptors(guest, daemon.pid)
        for _ in range(2):
            daemon.replace()
            assert int(guest.read(f'{daemon.runtime_dir}/lock')) == daemon.pid
        after = daemon.status()
        for b, a in zip(before, after):
            for same in ('name', 'device', 'state', 'uri', 'size', 'flags', 'outages', 'warnings'):
                assert a[same] == b[same], (same, b, a)
            assert [c['since'] for c in a['connections']] == [c['since'] for c in b['connections']]
        wait_until(lambda: not guest.children(daemon.pid))
        assert descriptors(guest, daemon.pid) <= fds
        # It has the descriptors: it sees a death at once, and may cut.
        daemon.ctl('reconnect', 'one')
        wait_until(lambda: daemon.status('one')['outages']['count'] == 2)
        server.restart()
        wait_until(lambda: daemon.status('two')['outages']['count'] == 2)
        wait_until(all_connected(daemon, 2), 40)
        writer.wait_flowing(60)
        writer.finish()
        daemon.detach('two')
        daemon.replace()
        assert [d['name'] for d in daemon.status()] == ['one']


def test_an_outage_goes_over(guest, server):
    with Daemon(guest) as daemon:
        device = daemon.attach(server.uri, name='one', reconnect_delay='20ms')
        writer = Workload(guest, device, size='16M', direct=True).start()
        server.kill()
        daemon.wait_state('one', 'reconnecting')
        before = daemon.status('one')['outages']['last']
        daemon.replace()
        s = daemon.status('one')
        assert s['state'] == 'reconnecting' and s['outages']['count'] == 1
        assert s['outages']['last']['start'] == before['start']
        server.start()
        daemon.wait_state('one', 'connected')
        writer.wait_flowing(30)
        writer.finish()


def test_others_are_refused_and_nothing_moves(guest, server):
    refused = {
        'HELLO 1 2 9 0.9': 'REFUSED it speaks protocol 1 and reads states of version 2 to 9',
        'HELLO 1 0 0 0.0': 'REFUSED it speaks protocol 1 and reads states of version 0 to 0',
        'HELLO 2 1 1 0.9': 'REFUSED it speaks protocol 2',
        'HELLO ': 'REFUSED it does not speak', 'GO on': 'REFUSED it does not speak',
        'HELLO -1 4294967296 x': 'REFUSED', 5000 * 'x': None,
    }
    with Daemon(guest) as daemon:
        daemon.attach(server.uri, name='one')

        def speak(*messages):
            return guest.python('tests.kernel.inside:speak', messages=messages,
                                path=f'{daemon.runtime_dir}/handover')
        for hello, answer in refused.items():
            said = speak(hello)
            assert [a.startswith(answer) for a in said] == ([True] if answer else []), said
        # Nor does anything move for one that is understood and then says something else: that
        # is killed, whatever it has read by then.
        said = [a.split()[0] for a in speak('HELLO 1 1 1 0.1', 'no')]
        assert said and said == ['WELCOME', 'DEVICE', 'END'][:len(said)]
        wait_until(lambda: 'failed (Protocol error): going on' in daemon.log())
        assert daemon.state('one') == 'connected' and daemon.process.rc is None
        # Who says nothing is let go, and holds nobody up.
        assert speak() == []
        daemon.replace()
        assert daemon.state('one') == 'connected'


@pytest.mark.parametrize('seconds, end, said', [(6, 'GO', 'died while it took over: going on here'),
                                                (None, '', 'going on')])
def test_a_slow_successor_is_waited_for_and_one_that_hangs_is_not(guest, server, seconds, end,
                                                                  said):
    with Daemon(guest) as daemon:
        daemon.attach(server.uri, name='one')
        assert guest.python('tests.kernel.inside:succeed', seconds=seconds,
                            path=f'{daemon.runtime_dir}/handover') == end
        wait_until(lambda: said in daemon.log(), 20)
        assert daemon.state('one') == 'connected'


def test_one_that_was_stopped_goes_on_if_nobody_is_in_charge(guest, server):
    with Daemon(guest) as daemon:
        daemon.attach(server.uri, name='one')
        wait_until(lambda: not guest.children(daemon.pid))
        fds = descriptors(guest, daemon.pid)

        def succeed(**how):
            assert guest.python('tests.kernel.inside:succeed', seconds=0, stopped=daemon.pid,
                                path=f'{daemon.runtime_dir}/handover', **how) == 'GO'
            daemon.process.kill(signal.SIGCONT)
        succeed()
        wait_until(lambda: 'died while it took over: going on here' in daemon.log(), 20)
        assert daemon.state('one') == 'connected'
        assert int(guest.read(f'{daemon.runtime_dir}/lock')) == daemon.pid
        wait_until(lambda: descriptors(guest, daemon.pid) <= fds)
        # Its successor had one, too.
        succeed(signer=1)
        assert daemon.process.wait(20) == 0
        daemon.start()
        assert daemon.state('one') == 'connected'


def test_without_one_that_runs_replace_is_a_start(guest, server):
    daemon = Daemon(guest)
    daemon.process = daemon.spawn('--replace')
    with daemon:
        daemon.wait_ready(daemon.process)
        daemon.attach(server.uri, name='one')
        daemon.crash()
        daemon.process = daemon.spawn('--replace')
        daemon.wait_ready(daemon.process)
        assert daemon.state('one') == 'connected'


def test_the_service_manager_knows_the_new_one(guest, server):
    with Service(guest) as service:
        device = service.attach(server.uri, name='one')
        writer = Workload(guest, device, size='16M', direct=True).start()
        new = service.spawn('--replace')
        service.wait_ready(new)
        wait_until(lambda: service.events('ready')[-1:] == [str(new.pid)], 10, 'MAINPID, READY')
        assert service.events('refused') == [], service.log()
        server.restart()
        wait_until(all_connected(service, 1, 1), 20)
        # It is the one that is started again, with what it has stored.
        service.kill(signal.SIGKILL)
        assert service.events('started')[-1].endswith('with 2 descriptors')
        assert service.state('one') == 'connected'
        writer.wait_flowing(30)
        writer.finish()


def test_a_service_takes_over_from_one_that_is_none(guest, server):
    """As nbdd.service does from the nbdd of an initramfs: nbdd.socket has taken its path."""
    with Daemon(guest) as daemon:
        device = daemon.attach(server.uri, name='one')
        writer = Workload(guest, device, size='16M', direct=True).start()
        service = Service(guest, instead_of=daemon)
        service.process = service.spawn('--replace', wrapper=service.wrapper)
        with service:
            service.wait_ready(service.process)
            assert daemon.process.wait(30) == 0
            assert 'one' in service.ctl('status').out
            wait_until(lambda: service.events('ready') == [str(service.pid)], 10, 'READY')
            # What the other had is stored, too: the connection and the netlink socket.
            assert service.state('one') == 'connected'
            service.kill(signal.SIGKILL)
            assert service.events('started')[-1].endswith('with 2 descriptors')
            assert service.state('one') == 'connected'
            writer.wait_flowing(30)
            writer.finish()


@pytest.mark.parametrize('victim', ['old', 'new'])
def test_a_kill_in_the_middle_leaves_one_that_has_everything(guest, server, victim):
    with Daemon(guest) as daemon:
        device = daemon.attach(server.uri, name='one', reconnect_delay='20ms')
        writer = Workload(guest, device, size='16M', direct=True).start()
        for n in range(6):
            old, new = daemon.process, daemon.spawn('--replace')
            wait_until(lambda: 'handing over' in old.output, 10, interval=0.001)
            time.sleep(random.random() * 0.03)      # where in the handover it hits
            (new if victim == 'new' else old).kill(signal.SIGKILL)
            if victim == 'new':
                new.wait(10)
                # Either it was not yet in charge, or the old one has ended already.
                wait_until(lambda: old.rc is not None or 'going on' in old.output, 10)
                if old.rc is not None:
                    daemon.start()
            else:
                old.wait(10)
                daemon.wait_ready(new)
                daemon.process = new
            assert [d['name'] for d in daemon.status()] == ['one']
            server.restart()
            wait_until(lambda: daemon.status('one')['outages']['count'] == n + 1)
            daemon.wait_state('one', 'connected', 20)
        writer.wait_flowing(30)
        writer.finish()
        assert len([p for p, (name, *_) in guest.processes().items() if name == 'nbdd']) == 1
