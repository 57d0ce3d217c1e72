"""What the processes of nbdd are, as the kernel shows them."""
import pwd
import re
import signal

import pytest

from tests.harness.daemon import Daemon
from tests.harness.paths import NBDCTL, ROOT
from tests.harness.script import Scripted
from tests.harness.servers import QemuNbd
from tests.harness.wait import wait_until
from tests.kernel.disk import file_server

pytestmark = pytest.mark.guest

CAPABILITIES = {'dac_override': 1, 'dac_read_search': 2, 'kill': 5, 'setgid': 6, 'setuid': 7,
                'net_admin': 12, 'sys_chroot': 18, 'sys_admin': 21}
OF_NBDD = ('dac_override', 'dac_read_search', 'net_admin', 'sys_admin')


def mask(*names):
    return sum(1 << CAPABILITIES[name] for name in names)


@pytest.fixture(scope='module')
def daemon(guest):
    with Daemon(guest) as d:
        yield d


def ctl(guest, daemon, *arguments):
    """nbdctl, not waited for."""
    return guest.spawn([NBDCTL, f'--runtime-dir={daemon.runtime_dir}', *arguments])


def unprivileged():
    """The ids of the user that children become; the guest's users are this machine's."""
    names = {p.pw_name: p for p in pwd.getpwall()}
    p = names.get('nbdd') or names['nobody']
    return str(p.pw_uid), str(p.pw_gid)


def child(guest, daemon, name):
    """The pid of the child of nbdd, or of its spawner, that calls itself NAME."""
    parents = (daemon.pid, daemon.spawner)

    def find():
        return [pid for pid, (comm, state, parent) in guest.processes().items()
                if comm == name and parent in parents and state != 'Z']
    return wait_until(find, 10, f"nbdd's child '{name}'")[0]


# Of a process that is looked at while it waits.
PATIENT = '--connect-timeout=60s'


def descriptors(guest, pid):
    """{number: what it is} of a process."""
    lines = guest.sh(f'cd /proc/{pid}/fd; for f in *; do echo $f $(readlink $f); done').out
    return {int(n): re.sub(r':.*', '', what) for n, what in map(str.split, lines.splitlines())}


def limits(guest, pid):
    found = {}
    for line in guest.read(f'/proc/{pid}/limits').splitlines()[1:]:
        m = re.match(r'(Max .+?)  +(\S+)  +(\S+)', line)
        found[m.group(1)] = m.group(3)
    return found


def test_the_process_that_talks_to_a_server_has_no_power(guest, daemon):
    with Scripted(guest) as server:
        server.switch('stall-at-greeting')
        p = ctl(guest, daemon, 'attach', server.uri, '--name=stalls', PATIENT)
        pid = child(guest, daemon, 'connect stalls')
        wait_until(lambda: guest.proc_status(pid)['Seccomp_filters'] == '3', 10,
                   'the filter of the second stage')
        s = guest.proc_status(pid)
        uid, gid = unprivileged()
        assert s['Uid'].split() == [uid] * 4 and s['Gid'].split() == [gid] * 4
        assert s['Groups'] == ''
        for kind in ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb'):
            assert int(s[kind], 16) == 0, kind
        assert (s['NoNewPrivs'], s['Seccomp']) == ('1', '2')
        assert guest.sh(f'readlink /proc/{pid}/root').out.strip() == \
            f'{daemon.runtime_dir}/empty'
        assert guest.list(f'/proc/{pid}/root/') == []
        # /dev/null three times, the way to nbdd, and the server.
        assert descriptors(guest, pid) == {0: '/dev/null', 1: '/dev/null', 2: '/dev/null',
                                           3: 'socket', 4: 'socket'}
        now = limits(guest, pid)
        assert [now[f'Max {w}'] for w in ('core file size', 'file size', 'processes')] == \
            ['0'] * 3
        assert int(now['Max open files']) <= 16384      # to answer, whatever others hold
        assert int(now['Max address space']) <= \
            int(guest.proc_status(daemon.spawner)['VmSize'].split()[0]) * 1024 + (64 << 20)
        daemon.detach('stalls', '--force')
        wait_until(lambda: p.rc is not None, 10, 'nbdctl to end')


def test_descriptors_that_others_hold_on_their_way_keep_no_connector_from_answering(guest, daemon):
    code = f'import tests.kernel.inside as i; i.fill_the_way({unprivileged()[0]})'
    other = guest.spawn(['/usr/bin/python3', '-B', '-E', '-s', '-c',
                         f'import sys; sys.path.insert(0, {str(ROOT)!r}); {code}'])
    wait_until(lambda: other.output == 'ETOOMANYREFS\n', 30, 'no more to be taken')
    with file_server(guest, 'answers') as server:
        daemon.attach(server.uri, name='answers')
        daemon.detach('answers')
    assert other.rc is None
    other.kill()
    other.wait()


def test_the_process_that_makes_connectors_has_no_power_but_to_shut_them_in(guest, daemon):
    s = guest.proc_status(daemon.spawner)
    uid, gid = unprivileged()
    # The real user and the saved one: to be spared by the last kill, and by others of its user.
    assert s['Uid'].split() == ['0', uid, '0', uid] and s['Gid'].split() == [gid] * 4
    assert s['Groups'] == ''
    for kind in ('CapPrm', 'CapEff'):
        assert int(s[kind], 16) == mask('sys_chroot'), kind
    assert all(int(s[kind], 16) == 0 for kind in ('CapBnd', 'CapInh', 'CapAmb'))
    assert (s['NoNewPrivs'], s['Seccomp']) == ('1', '2')
    assert int(s['VmLck'].split()[0]) > 8000
    assert guest.read(f'/proc/{daemon.spawner}/oom_score_adj').strip() == '-1000'


def has_gone(guest, pid):
    return guest.processes().get(pid, ('', 'Z'))[1] == 'Z'


def outage(d, server, during=lambda: None):
    """The server of device `keeps` goes away and comes back; DURING is called meanwhile."""
    count = d.status('keeps')['outages']['count']
    server.kill()
    d.wait_state('keeps', 'reconnecting')
    during()
    server.start()
    d.wait_state('keeps', 'connected')
    assert d.status('keeps')['outages']['count'] == count + 1


def kill_spawner(guest, d):
    """Kill it, and return when there is another."""
    pid = d.spawner
    guest.kill(pid, signal.SIGKILL)
    wait_until(lambda: d.spawner not in (pid, None), 20, 'another spawner')


def test_a_spawner_that_is_killed_has_a_successor(guest):
    with file_server(guest, 'keeps') as server, Scripted(guest) as silent, Daemon(guest) as d:
        d.attach(server.uri, name='keeps', reconnect_delay_max='200ms')
        for _ in range(3):
            kill_spawner(guest, d)
        assert d.state('keeps') == 'connected'
        outage(d, server)
        outage(d, server, lambda: kill_spawner(guest, d))
        # Its children end with it, and for whoever waits for them they have died.
        silent.switch('stall-at-greeting')
        p = ctl(guest, d, 'attach', silent.uri, '--name=stalls', PATIENT)
        pid = child(guest, d, 'connect stalls')
        kill_spawner(guest, d)
        wait_until(lambda: has_gone(guest, pid), 10, 'the connector to end with the spawner')
        assert p.wait(10) != 0 and 'the connector process died' in p.output
        assert 'was killed (signal 9): another one is made in' in d.log()
        s = guest.proc_status(d.spawner)
        assert int(s['CapPrm'], 16) == mask('sys_chroot') and s['Uid'].split()[0] == '0'
        assert int(s['VmLck'].split()[0]) > 8000
        left = d.keeper, d.spawner
    assert all(wait_until(lambda: has_gone(guest, pid), 10) for pid in left)


def test_without_a_keeper_the_spawner_goes_on_and_without_both_nbdd_says_so(guest):
    with file_server(guest, 'keeps') as server, Daemon(guest) as d:
        d.attach(server.uri, name='keeps', reconnect_delay_max='200ms')
        spawner = d.spawner
        guest.kill(d.keeper, signal.SIGKILL)
        wait_until(lambda: 'the keeper of the process that makes connections has ended' in
                   d.log())
        outage(d, server)
        assert not has_gone(guest, spawner) and not d.status('keeps')['warnings']
        guest.kill(spawner, signal.SIGKILL)
        ended = 'the process that makes connections has ended, and its keeper'
        wait_until(lambda: ended in d.log())
        assert d.state('keeps') == 'connected'
        assert ended in d.status('keeps')['warnings'][0]
        r = d.ctl('attach', server.uri, '--name=other', check=False)
        assert r.rc != 0 and 'nbdd --replace' in r.out
        d.replace()
        assert not d.status('keeps')['warnings']
        outage(d, server)
        # A spawner alone ends with nbdd, too.
        spawner = d.spawner
        guest.kill(d.keeper, signal.SIGKILL)
        wait_until(lambda: d.keeper is None)
    wait_until(lambda: has_gone(guest, spawner), 10, 'the spawner to end with nbdd')


def test_an_errand_is_root_for_its_device_alone(guest, daemon):
    guest.run(['truncate', '-s', '16M', '/tmp/errand'])
    with QemuNbd(guest, '/tmp/errand', tcp=True) as server:
        device = daemon.attach(server.uri, name='errand')
        server.stop()
        detach = ctl(guest, daemon, 'detach', device)
        pid = child(guest, daemon, f'flush {device[5:]}')
        wait_until(lambda: guest.proc_status(pid)['Seccomp_filters'] == '2', 10, 'its filter')
        s = guest.proc_status(pid)
        assert s['Uid'].split()[0] == '0' and (s['NoNewPrivs'], s['Seccomp']) == ('1', '2')
        for kind in ('CapPrm', 'CapEff'):
            assert int(s[kind], 16) == mask('dac_override'), kind
        assert int(s['CapBnd'], 16) == 0
        server.cont()
        assert detach.wait(20) == 0


def test_the_process_that_runs_programs_has_little_power_and_they_none(guest, daemon):
    s = guest.proc_status(child(guest, daemon, 'programs'))
    assert s['Uid'].split() == ['0'] * 4 and s['NoNewPrivs'] == '1'
    for kind in ('CapPrm', 'CapEff', 'CapBnd'):
        assert int(s[kind], 16) == mask('setuid', 'setgid', 'kill'), kind
    assert descriptors(guest, s['Pid'])[3] == 'socket'
    assert set(descriptors(guest, s['Pid'])) == {0, 1, 2, 3, 4}     # 4: its signalfd
    script = f'{guest.path}/look'
    guest.write(script, '#!/bin/sh\nset -e\n'
                '{ cat /proc/self/status; cat /proc/self/oom_score_adj; ls /proc/self/fd; } '
                f'>{guest.path}/$NBDD_NAME.new\nmv {guest.path}/$NBDD_NAME.new '
                f'{guest.path}/$NBDD_NAME\n')
    guest.run(['chmod', '755', script])
    guest.run(['chmod', '777', guest.path])
    guest.run(['truncate', '-s', '16M', '/tmp/looked'])
    with QemuNbd(guest, '/tmp/looked', tcp=True) as server:
        for name, keys in (('plain', {}), ('roots', {'on_event_user': 'root'})):
            daemon.attach(server.uri, name=name, on_event=script, **keys)
            wait_until(lambda: guest.exists(f'{guest.path}/{name}'), 20)
            text = guest.read(f'{guest.path}/{name}')
            s = dict(line.split(':\t', 1) for line in text.splitlines() if ':\t' in line)
            ids = unprivileged() if name == 'plain' else ('0', '0')
            assert (s['Uid'].split()[0], s['Gid'].split()[0]) == ids
            assert s['NoNewPrivs'] == '1' and s['VmLck'].split()[0] == '0'
            for kind in ('CapPrm', 'CapEff', 'CapInh', 'CapAmb'):
                assert int(s[kind], 16) == 0, kind
            assert text.splitlines()[-5:] == ['0', '0', '1', '2', '3']  # 3: ls's own
            daemon.detach(name)


def test_nbdd_keeps_the_capabilities_that_it_uses(guest, daemon):
    for thread in guest.list(f'/proc/{daemon.pid}/task'):
        text = guest.read(f'/proc/{daemon.pid}/task/{thread}/status')
        s = dict(line.split(':\t', 1) for line in text.splitlines() if ':\t' in line)
        for kind in ('CapPrm', 'CapEff'):
            assert int(s[kind], 16) == mask(*OF_NBDD), kind
        assert all(int(s[kind], 16) == 0 for kind in ('CapBnd', 'CapInh', 'CapAmb'))
        assert (s['NoNewPrivs'], s['Seccomp']) == ('1', '2')
