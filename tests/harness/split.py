"""nbdd as its units have it: as a user of its own, and its service for connections as another.

    with known_users(guest), of_a_user(Daemon, guest) as daemon:
        service = Connections(guest, f'{daemon.runtime_dir}-connect').start()
        service.kill()          # back when the next one is ready
"""
import contextlib
import re
import signal

from tests.harness.paths import HARNESS, NBDD
from tests.harness.wait import wait_until

DAEMON, SERVICE = 61234, 61235          # nbdd-daemon and nbdd in the guest
KEEPS = '+sys_admin,+net_admin,+dac_override,+dac_read_search,+sys_resource'


def user(uid, capabilities):
    """The command that makes another one UID's, with these and no others."""
    return ['/usr/bin/setpriv', f'--reuid={uid}', f'--regid={uid}', '--clear-groups',
            '--no-new-privs', f'--inh-caps=-all,{capabilities}',
            f'--ambient-caps=-all,{capabilities}', f'--bounding-set=-all,{capabilities}']


class Connections:
    """The service as systemd has it."""

    def __init__(self, guest, path):
        self.guest, self.path, self.process = guest, path, None

    def start(self):
        self.process = self.guest.spawn(
            ['/usr/bin/python3', '-B', '-E', '-s', HARNESS / 'activated.py', self.path, DAEMON,
             *user(SERVICE, '+sys_resource'), NBDD, '--serve=connections'])
        self.wait_ready(1)
        return self

    def wait_ready(self, number):
        wait_until(lambda: self.process.output.count('activated: ready') >= number, 20,
                   'the service')

    @property
    def pid(self):
        return int(re.findall(r'^activated: started (\d+)', self.process.output, re.M)[-1])

    def kill(self):
        """By -9; back when the next one is ready."""
        before = self.process.output.count('activated: ready')
        self.guest.kill(self.pid, signal.SIGKILL)
        self.wait_ready(before + 1)

    def spawners(self):
        return [p for p, (name, state, parent) in self.guest.processes().items()
                if (name, parent) == ('spawner', self.pid) and state != 'Z']

    def stop(self):
        self.process.kill(signal.SIGTERM)
        self.process.wait(20)


@contextlib.contextmanager
def known_users(guest):
    guest.write(f'{guest.path}/passwd', open('/etc/passwd').read() +
                f'nbdd-daemon:x:{DAEMON}:{DAEMON}::/:/usr/sbin/nologin\n')
    guest.sh(f'mount --bind {guest.path}/passwd /etc/passwd')
    yield
    guest.run(['umount', '/etc/passwd'])


def of_a_user(make, guest, **how):
    """The Daemon, or what is one, that MAKE returns, as a user; not started yet."""
    d = make(guest, **how)
    d.wrapper += user(DAEMON, KEEPS)
    guest.sh(f'mkdir -p {d.runtime_dir}; chown {DAEMON}:{DAEMON} {d.runtime_dir}')
    return d
