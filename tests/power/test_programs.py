"""`nbdd --serve=programs`: what it runs, for whom, and what it does not."""
import hashlib
import json
import os
import pwd
import re
import signal

import pytest

from tests.harness.daemon import Daemon
from tests.harness.paths import NBDD
from tests.harness.servers import Nbdkit
from tests.harness.split import DAEMON, KEEPS, Connections, user
from tests.harness.wait import Stopwatch, wait_until
from tests.power.test_connections import users

pytestmark = pytest.mark.guest

IDS = {p.pw_name: p.pw_uid for p in pwd.getpwall()}
UNPRIVILEGED = IDS.get('nbdd', IDS['nobody'])
STRANGER = IDS['daemon']
SCRIPT = """#!/bin/sh
[ "$NBDD_MESSAGE" != slow ] || while [ ! -e {go} ]; do sleep 0.05; done
echo "$(id -u) $(sed -n 's/^CapEff:\t//p' /proc/self/status) $NBDD_EVENT $NBDD_DEVICE $NBDD_NAME\
 $NBDD_MESSAGE" >>{log}
"""
CONFIG = """
[a]
uri = nbd://localhost/
on-event = {script}
[as-root]
uri = nbd://localhost/
on-event = {script}
on-event-user = root
[none]
uri = nbd://localhost/
"""
NO_POWER = '0' * 16
OUTAGE = 3                      # enum news_kind
KINDS = 12
TIMEOUT = 60                    # on a machine that is busy with other guests


class Service:
    """What systemd does for it: the socket is there, the process when it is wanted."""

    def __init__(self, guest, path, config):
        self.guest, self.pid, self.path, self.config = guest, None, path, config
        self.script = f'{guest.path}/on-event'
        self.events, self.go = f'{guest.path}/events', f'{guest.path}/go'
        self.log_path = f'{guest.path}/{os.path.basename(path)}.log'
        guest.write(self.script, SCRIPT.format(log=self.events, go=self.go))
        guest.sh(f'cd {guest.path}; chmod 755 . on-event; touch events; chmod 666 events')

    def listen(self):
        self.call('listen')

    def call(self, function, **how):
        return self.guest.python(f'tests.power.orders:{function}', path=self.path, **how)

    def start(self):
        self.pid = self.call('serve', argv=[str(NBDD), '--serve=programs',
                                            f'--config={self.config}',
                                            f'--nbdtab={self.guest.path}/none'],
                             log=self.log_path)

    def end(self, sig=0):
        pid, self.pid = self.pid, None
        return self.guest.python('tests.power.orders:end', pid=pid, sig=int(sig), timeout=90)

    def order(self, *orders, uid=DAEMON, stay=False):
        self.call('send', uid=uid, orders=orders, stay=stay)

    def log(self):
        return self.guest.read(self.log_path)

    def ran(self):
        return self.guest.read(self.events).splitlines()

    def wait_log(self, text, count=1):
        def said():
            assert self.log().count(text) == count, self.log()
            return True
        wait_until(said, TIMEOUT, text)

    def wait_ran(self, *last):
        """LAST is what has been run at the end of it all."""
        def done():
            assert self.ran()[-len(last):] == list(last)
            return True
        wait_until(done, TIMEOUT, 'these programs')


@pytest.fixture(scope='module')
def programs(users):
    s = Service(users, '/run/nbdd-programs', f'{users.path}/nbdd.conf')
    users.write(s.config, CONFIG.format(script=s.script))
    s.listen()
    s.start()
    yield s
    if s.pid:
        s.end(signal.SIGKILL)


def test_an_order_runs_the_program_of_the_configuration_as_its_user(programs):
    programs.order({'name': 'a', 'message': 'one, two'},
                   {'name': 'a', 'kind': OUTAGE, 'device': '', 'message': 'a\nb'},
                   stay=True)
    programs.wait_ran(f'{UNPRIVILEGED} {NO_POWER} attached /dev/nbd0 a one, two',
                      f'{UNPRIVILEGED} {NO_POWER} outage  a a?b')
    programs.order({'name': 'as-root', 'device': '/dev/nbd7'}, uid=0)
    programs.wait_ran(f'0 {NO_POWER} attached /dev/nbd7 as-root m')
    assert len(programs.ran()) == 3 and programs.log() == ''
    s = programs.guest.proc_status(programs.pid)
    # SETUID, SETGID, KILL
    assert int(s['CapEff'], 16) == int(s['CapBnd'], 16) == 1 << 5 | 1 << 6 | 1 << 7
    assert s['NoNewPrivs'] == '1'


def test_an_order_cannot_name_another_program_or_come_from_another_user(programs):
    programs.order({'name': 'a'})
    programs.wait_ran(f'{UNPRIVILEGED} {NO_POWER} attached /dev/nbd0 a m')
    before = programs.ran()
    programs.order({'name': 'unknown'}, {'name': 'none'})
    programs.wait_log("unknown: on-event: 'attached': nothing is run: neither ")
    programs.wait_log("none: on-event: 'attached': nothing is run: neither ")
    # What an nbdd that is root sends to its fork, with a path and a user; and its like.
    named = b'/bin/touch'.ljust(1024, b'\0') + b'root'.ljust(256, b'\0')
    size = 688
    for n in (1, size - 1, size + 1, len(named) + size):
        programs.order(list(named.ljust(2048, b'\0')[:n]))
        programs.wait_log(f'an order of {n} bytes, expected {size}: nothing is run')
    for wrong in ({'name': '../a'}, {'name': ''}, {'name': 'a' * 129}):
        programs.order(wrong)
    programs.wait_log('an order whose name of a device is none', 3)
    programs.order({'kind': KINDS}, {'kind': -1})
    programs.wait_log('an order whose event is none', 2)
    programs.order({'device': '/dev/sda'}, {'device': '/' * 32})
    programs.wait_log('an order whose device is none', 2)
    programs.order({'message': 'm' * 512})
    programs.wait_log('an order whose message is none')
    assert programs.call('turned_away', uid=STRANGER)
    programs.guest.kill(programs.pid, signal.SIGSTOP)
    programs.order({'name': 'a'}, uid=STRANGER)
    programs.guest.kill(programs.pid, signal.SIGCONT)
    programs.wait_log(f'nbdd: user {STRANGER} (process ', 2)
    assert re.search(r'\(process \d+\) has connected, expected root or nbdd-daemon: turned away',
                     programs.log())
    assert programs.ran() == before
    # A client of the first test is still served; the configuration is as it is now.
    programs.guest.write(programs.config, CONFIG.format(script='/bin/false'))
    programs.order({'name': 'a'})
    programs.wait_log("a: on-event: its program for 'attached' ended with status 1")
    programs.guest.write(programs.config, CONFIG.format(script=programs.script))
    assert programs.ran() == before


def test_the_next_service_goes_on_where_the_last_has_ended(programs):
    # Nobody is there for a moment: the order waits in the socket.
    assert programs.end(signal.SIGKILL) == -signal.SIGKILL
    programs.order({'name': 'a', 'message': 'waited'})
    programs.start()
    programs.wait_ran(f'{UNPRIVILEGED} {NO_POWER} attached /dev/nbd0 a waited')
    # One that is to end runs what it was told, and takes no more from whom it has.
    programs.order({'name': 'a', 'message': 'slow'}, {'name': 'a', 'message': 'last'}, stay=True)
    wait_until(lambda: [c for c in programs.guest.processes().values() if c[2] == programs.pid],
               TIMEOUT, 'the program to be run')
    programs.guest.kill(programs.pid, signal.SIGTERM)
    wait_until(lambda: programs.guest.python('tests.power.orders:send_again', number=-1) ==
               os.strerror(32), TIMEOUT, 'the connection to be ended')
    programs.order({'name': 'a', 'message': 'for the next'})
    programs.guest.write(programs.go, '')
    assert programs.end() == 0
    programs.start()
    programs.wait_ran(*(f'{UNPRIVILEGED} {NO_POWER} attached /dev/nbd0 a {what}'
                        for what in ('waited', 'slow', 'last', 'for the next')))


def test_it_has_a_few_clients_and_ends_only_without_any(programs):
    for _ in range(8):
        programs.order(stay=True)           # they are taken in their order
    assert programs.call('turned_away', uid=DAEMON)
    programs.wait_log('more than 8 clients')


def test_an_nbdd_that_is_not_root_asks_the_service(users, programs):
    with Nbdkit(users) as server:
        d = Daemon(users, wrapper=user(DAEMON, KEEPS),
                   config=f'[dev]\nuri = {server.uri}\non-event = {programs.script}\n')
        users.sh(f'mkdir {d.runtime_dir}; chown {DAEMON}:{DAEMON} {d.runtime_dir}')
        connections = Connections(users, f'{d.runtime_dir}-connect').start()
        service = Service(users, f'{d.runtime_dir}-programs', d.config_path)

        def runs():
            """Both events, whose program is run."""
            before = len(programs.ran())
            d.ctl('reconnect', 'dev')
            wait_until(lambda: [line.split()[2:5] for line in programs.ran()[before:]] ==
                       [[e, '/dev/nbd0', 'dev'] for e in ('outage', 'reconnected')], TIMEOUT)
        with d:
            d.wait_state('dev', 'connected')
            assert d.log().count(f'on-event: cannot connect to {service.path} (No such') == 1
            assert "'systemctl start nbdd-programs.socket'" in d.status('dev')['warnings'][0]
            service.listen()
            assert d.status('dev')['warnings'] == []
            service.start()
            runs()
            assert 'on-event: 1 programs were left out' in d.log()
            service.end(signal.SIGKILL)
            service.start()
            runs()
            # What nbdctl says is no proof of anything to the service.
            out = d.ctl('attach', server.uri, '--name=other', f'--on-event={programs.script}').out
            assert 'on-event is run only as nbdd.conf or nbdtab has it' in out
            service.wait_log("other: on-event: 'attached': nothing is run")
        wait_until(lambda: programs.ran()[-1].split()[2:5] == ['detached', '/dev/nbd0', 'dev'],
                   TIMEOUT)
        service.end(signal.SIGKILL)
        connections.stop()


def forged(state, program):
    """The text of a STATE, with another program."""
    line, rest = state.split('\n', 1)
    magic, version, length, _ = line.split()
    o = json.loads(rest[:int(length)])
    o['keys']['on-event'] = program
    text = json.dumps(o)
    return (f'{magic} {version} {len(text)} {hashlib.sha256(text.encode()).hexdigest()}\n'
            f'{text}\n')


def test_root_runs_of_what_it_takes_over_only_what_root_or_the_files_have_named(users, programs):
    """Whoever has taken over nbdd-daemon writes its states, and hands over what it likes."""
    roots = {'on_event': programs.script, 'on_event_user': 'root'}
    before = len(programs.ran())

    def ran(name):
        lines = [line.split() for line in programs.ran()[before:]]
        assert all(line[0] == '0' for line in lines if line[4] != 'dev')
        return [line[2] for line in lines if line[4] == name]

    with Nbdkit(users) as server:
        d = Daemon(users, wrapper=user(DAEMON, KEEPS),
                   config=f'[dev]\nuri = {server.uri}\non-event = {programs.script}\n')
        users.sh(f'mkdir {d.runtime_dir}; chown {DAEMON}:{DAEMON} {d.runtime_dir}')
        connections = Connections(users, f'{d.runtime_dir}-connect').start()
        said = 'theirs: on-event does not run: an nbdd that is not root has said what to run'
        with d:
            d.wait_state('dev', 'connected')
            d.attach(server.uri, name='theirs', **roots)
            d.replace()                         # by root, from here on
            d.wrapper = []
            wait_until(lambda: d.log().count(said) == 1, TIMEOUT)
            assert said.split(': ')[1] in d.status('theirs')['warnings'][-1]
            d.attach(server.uri, name='roots', **roots)
            d.ctl('reconnect', 'theirs')
            wait_until(lambda: d.status('theirs')['outages']['count'] == 1, TIMEOUT)
            d.wait_state('theirs', 'connected')
            for name in ('dev', 'roots'):
                assert d.status(name)['warnings'] == []
                d.ctl('reconnect', name)
            wait_until(lambda: ran('roots') == ['attached', 'outage', 'reconnected'] and
                       ran('dev') == ['outage', 'reconnected'], TIMEOUT)
            # The next one knows what root has named, and who has said the rest.
            d.crash()
            d.start()
            wait_until(lambda: ran('roots')[3:] == ['adopted'], TIMEOUT)
            assert d.log().count(said) == 1 and 'roots: on-event' not in d.log()
            # Root's own file, by who may write into it; then systemd makes all of them root's.
            d.crash()
            path = f'{d.runtime_dir}/devices/roots'
            users.write(path, forged(users.read(path), '/bin/false'))
            users.sh(f'chown -R 0:0 {d.runtime_dir}')
            d.start()
            assert 'on-event does not run' in d.status('roots')['warnings'][-1]
            for name in ('roots', 'theirs', 'dev'):
                d.ctl('detach', name)
            wait_until(lambda: ran('dev')[2:] == ['detached'], TIMEOUT)
            assert '/bin/false' not in d.log() and len(ran('roots')) == 4
            assert ran('theirs') == []
        connections.stop()


@pytest.mark.soak
def test_it_ends_by_itself_a_minute_after_the_last_client(programs):
    # As the last test has left it, with clients.
    pid, watch = programs.pid, Stopwatch()
    programs.guest.python('tests.power.orders:close_all')
    assert programs.end() == 0 and 30 < watch() < 90
    programs.start()
    assert programs.pid != pid
    programs.order({'message': 'later'})
    programs.wait_ran(f'{UNPRIVILEGED} {NO_POWER} attached /dev/nbd0 a later')
