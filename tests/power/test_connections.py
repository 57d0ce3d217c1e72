"""`nbdd --serve=connections`: connectors, relays and resolvers of an nbdd that is not root."""
import re
import signal

import pytest

from tests.harness.daemon import Daemon
from tests.harness.paths import NBDD
from tests.harness.script import Scripted
from tests.harness.split import DAEMON, KEEPS, SERVICE, Connections, known_users, of_a_user, user
from tests.harness.wait import wait_until
from tests.harness.workload import Workload
from tests.kernel.disk import file_server
from tests.kernel.tls_guest import cut_server, install, nbds
from tests.power.test_processes import has_gone, outage

pytestmark = pytest.mark.guest

CLIENTS = 8                             # SPAWNER_CLIENTS_MAX
# PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE of linux/sched.h: what PR_SET_IO_FLUSHER sets.
IO_FLUSHER = 0x180000
AT_ONCE = {'reconnect_delay_max': '200ms'}


@pytest.fixture(scope='module')
def users(guest):
    with known_users(guest):
        yield guest


@pytest.fixture
def daemon(users):
    """An nbdd that is not root, and has no service yet."""
    with of_a_user(Daemon, users) as d:
        yield d


@pytest.fixture
def service(users, daemon):
    s = Connections(users, f'{daemon.runtime_dir}-connect')
    yield s
    s.stop()


def identity(guest, pid):
    """The ids of a process, who has no power."""
    s = guest.proc_status(pid)
    for kind in ('CapInh', 'CapPrm', 'CapEff', 'CapAmb'):
        assert int(s[kind], 16) == 0, kind
    assert (s['NoNewPrivs'], s['Seccomp'], s['Groups']) == ('1', '2', '')
    return s['Uid'].split() + s['Gid'].split()


def ask_for_what_there_is_not(guest, service):
    make, kill, dial, relay, resolve, read = 1, 2, 0, 2, 3, 4
    version = re.search(r'nbdd (\S+)', guest.run([NBDD, '--version']).out).group(1)
    wrong = [1, 47, 49, *({'order': [*o, version], 'fds': fds} for o, fds in (
        ((0, dial, 0, 0, 'x'), 1),              # no verb
        ((make, 8, 0, 0, 'x'), 1), ((make, read, 0, 0, 'x'), 1),      # a role that is none here
        ((make, dial, 0, 0, 'x'), 1), ((make, relay, 1, 0, 'x'), 2),  # a job too few, or many
        ((make, resolve, 1, 0, 'x'), 1), ((make, relay, 0, 0, 'x'), 0),       # descriptors
        ((kill, 0, 0, 0, 'x'), 0), ((kill, 0, 0, 0, 'x'), 2),
        ((make, relay, 0, 0, 'a\nb'), 1), ((make, relay, 0, 0, 'x' * 16), 1)))]
    guest.python('tests.power.clients:send', path=service.path, orders=[
        *wrong, {'order': [make, relay, 0, 0, 'x', '0.0'], 'fds': 1}])
    wait_until(lambda: 'nbdd 0.0 asks for a process, and this is of version' in
               service.process.output, 10, 'the last order to be seen')
    assert service.process.output.count('is not as expected: left out') == len(wrong)


def test_whoever_is_killed_of_the_service_there_is_another(users, service, daemon):
    guest, not_there = users, "'systemctl start nbdd-connect.socket'"
    with file_server(guest, 'keeps') as server, Scripted(guest) as silent:
        r = daemon.ctl('attach', server.uri, '--name=keeps', check=False)
        assert r.rc != 0 and not_there in r.out
        assert daemon.log().count('cannot connect to') == 1
        service.start()
        daemon.attach(server.uri, name='keeps', **AT_ONCE)
        assert f'{service.path} can be reached again' in daemon.log()

        (spawner,) = service.spawners()
        for pid in (service.pid, spawner):
            assert identity(guest, pid) == [str(SERVICE)] * 8
            assert int(guest.proc_status(pid)['VmLck'].split()[0]) > 8000
        silent.switch('stall-at-greeting')
        p = guest.spawn(daemon.ctl_argv('attach', silent.uri, '--name=stalls',
                                             '--connect-timeout=60s'))
        (connector,) = wait_until(lambda: [
            p for p, (name, _, _) in guest.processes().items() if name == 'connect stalls'])
        wait_until(lambda: guest.proc_status(connector)['Seccomp_filters'] == '3', 10,
                   'the filter of the second stage')
        assert identity(guest, connector) == [str(SERVICE)] * 8

        guest.kill(spawner, signal.SIGKILL)
        wait_until(lambda: has_gone(guest, connector), 10, 'the connector to end')
        assert p.wait(10) != 0 and 'the connector process died' in p.output
        outage(daemon, server)
        service.kill()
        wait_until(lambda: 'nbdd-connect.service has ended' in daemon.log())
        outage(daemon, server)
        outage(daemon, server, service.kill)

        def be_without_it():
            service.stop()
            wait_until(lambda: not_there in daemon.status('keeps')['retry']['last_error'])
            assert not_there in daemon.status('keeps')['warnings'][0]
            service.start()
        outage(daemon, server, be_without_it)
        # While nothing is asked of it, too.
        assert not daemon.status('keeps')['warnings']
        service.stop()
        (warning,) = wait_until(lambda: daemon.status('keeps')['warnings'])
        assert not_there in warning
        service.start()
        assert not daemon.status('keeps')['warnings']
        outage(daemon, server)

        ask_for_what_there_is_not(guest, service)
        (spawner,) = wait_until(lambda: len(s := service.spawners()) == 1 and s, 10)
        guest.python('tests.power.clients:connect', path=service.path, number=CLIENTS)
        wait_until(lambda: len(service.spawners()) == CLIENTS, 10, 'as many as may be')
        guest.python('tests.power.clients:leave')
        wait_until(lambda: service.spawners() == [spawner], 10, 'the others to end')
        daemon.close()
        wait_until(lambda: has_gone(guest, spawner), 10, 'its spawner to end with nbdd')


def test_relays_stay_when_the_service_ends_and_the_next_one_can_end_them(users, service, daemon):
    guest, at = users, install(users)
    with cut_server(guest, at, 'relayed') as server:
        service.start()
        device = daemon.attach(nbds(server), name='relayed', kernel_tls='off', **AT_ONCE,
                               tls_certificates=f'{at}/pki/client')

        def relay():
            return daemon.status('relayed')['connections'][0]['relay']
        pid = wait_until(relay, 10, 'a relay')
        assert identity(guest, pid) == [str(SERVICE)] * 8
        flags = int(guest.read(f'/proc/{pid}/stat').rsplit(')', 1)[1].split()[6])
        assert flags & IO_FLUSHER == IO_FLUSHER
        w = Workload(guest, device, size='4M', direct=True).start()
        service.kill()
        w.wait_flowing(10)
        assert relay() == pid and daemon.status('relayed')['outages']['count'] == 0
        w.finish()
        # One that was taken over and does not listen ends by force, which nbdd itself has not.
        daemon.crash()
        daemon.start()
        assert relay() == pid
        guest.kill(pid, signal.SIGSTOP)
        daemon.ctl('reconnect', 'relayed')
        wait_until(lambda: has_gone(guest, pid), 10, 'the relay to be killed')
        daemon.wait_state('relayed', 'connected')
        guest.run(['dd', f'if={device}', 'of=/dev/null', 'iflag=direct', 'bs=64k', 'count=10'])
        last = wait_until(relay, 10, 'another relay')
        daemon.detach('relayed')
        wait_until(lambda: has_gone(guest, last), 20, 'it to end with its device')


def replaced(daemon, wrapper):
    """By another one, whose command begins with WRAPPER."""
    old, daemon.process = daemon.process, daemon.spawn('--replace', wrapper=wrapper)
    daemon.wait_ready(daemon.process)
    assert old.wait(30) == 0, old.output


def test_root_and_nbdds_user_take_over_from_each_other_and_from_nobody_else(users, service, daemon):
    guest, own = users, user(DAEMON, KEEPS)
    service.start()
    with file_server(guest, 'goes') as server:
        device = daemon.attach(server.uri, name='goes', **AT_ONCE)
        writer = Workload(guest, device, size='4M', direct=True).start()
        number = 0
        for wrapper, uid in (((), 0), (own, DAEMON)):
            replaced(daemon, wrapper)
            assert guest.proc_status(daemon.pid)['Uid'].split() == [str(uid)] * 4
            number += 1
            daemon.ctl('reconnect', 'goes')
            wait_until(lambda n=number: daemon.status('goes')['outages']['count'] == n)
            daemon.wait_state('goes', 'connected')
        # The same from what one that was killed has left.
        for wrapper in ((), own):
            daemon.crash()
            daemon.wrapper = list(wrapper)
            daemon.start()
            daemon.wait_state('goes', 'connected')
        stranger = daemon.spawn('--replace', wrapper=user(DAEMON + 7, KEEPS))
        assert stranger.wait(20) == 1 and 'cannot take over from' in stranger.output
        file = f'{daemon.runtime_dir}/devices/goes'
        for owner, there in ((DAEMON + 7, []), (0, ['goes'])):
            daemon.crash()
            guest.run(['chown', str(owner), file])
            daemon.start()
            assert [s['name'] for s in daemon.status()] == there
        daemon.wait_state('goes', 'connected')
        writer.wait_flowing(10)
        writer.finish()
        daemon.detach('goes')
