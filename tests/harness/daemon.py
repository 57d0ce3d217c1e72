"""nbdd and nbdctl as built, on a Host or in a Guest.

    with Daemon(guest) as d:
        device = d.attach(server.uri, name='a', dead_timeout='5s')     # /dev/nbd0
        d.status('a')['state'], d.wait_state('a', 'connected')
        d.ctl('reconnect', 'a', check=False).rc
"""
import json
import re
import signal
import time

from tests.harness.paths import NBDCTL, NBDD
from tests.harness.wait import wait_until

START_TIMEOUT = 60


class Daemon:
    """NBDTAB and CONFIG are the texts of its files; both may be changed at `d.nbdtab_path`,
    `d.config_path`.  At the end devices are detached and the daemon must end well."""

    def __init__(self, machine, nbdtab='', config='', env=None, wrapper=()):
        number = machine.daemons = getattr(machine, 'daemons', 0) + 1
        self.machine, self.env, self.wrapper = machine, env, list(wrapper)
        self.runtime_dir = f'/run/nbdd-test{number}'
        self.nbdtab_path = f'{machine.path}/nbdtab{number}'
        self.config_path = f'{machine.path}/nbdd{number}.conf'
        machine.write(self.nbdtab_path, nbdtab)
        machine.write(self.config_path, config)
        self.process, self.spawned = None, []
        machine.all_daemons = [*getattr(machine, 'all_daemons', ()), self]

    @property
    def pid(self):
        return self.process.pid

    def child(self, parent, wanted):
        return next((p for p, (name, state, of) in self.machine.processes().items()
                     if (name, of) == (wanted, parent) and state != 'Z'), None)

    @property
    def keeper(self):
        """The pid of the process that makes the spawner anew."""
        return self.child(self.pid, 'keeper')

    @property
    def spawner(self):
        """The pid of the process that makes its connectors, which an nbdd that says it is ready
        may not have yet; None without a keeper, or when there is none for long."""
        deadline = time.monotonic() + 20
        while (keeper := self.keeper) is not None:
            pid = self.child(keeper, 'spawner')
            if pid is not None or time.monotonic() > deadline:
                return pid
            time.sleep(0.01)
        return None

    @property
    def socket(self):
        return f'{self.runtime_dir}/control'

    def argv(self, *options):
        return [str(NBDD), *options, f'--config={self.config_path}',
                f'--nbdtab={self.nbdtab_path}', f'--runtime-dir={self.runtime_dir}']

    def spawn(self, *options, wrapper=()):
        self.spawned.append(self.machine.spawn([*wrapper, *self.argv(*options)], env=self.env))
        return self.spawned[-1]

    @staticmethod
    def wait_ready(process):
        def ready():
            if process.rc is not None:
                raise RuntimeError(f'nbdd ended with {process.rc}\n{process.output}')
            # Lines for the journal begin with their level alone.
            return re.search('(nbdd: |<6>)ready: ', process.output)
        wait_until(ready, START_TIMEOUT, 'nbdd to be ready')

    def start(self):
        """Start it and return when it has read its files and serves."""
        self.process = self.spawn(wrapper=self.wrapper)
        self.wait_ready(self.process)
        return self

    def replace(self):
        """Start another one with --replace; the first must end well."""
        old, self.process = self.process, self.spawn('--replace')
        self.wait_ready(self.process)
        rc = old.wait(30)
        assert rc == 0, f'the nbdd that was replaced ended with {rc}\n{old.output[-4000:]}'

    def crash(self):
        """Kill it by -9; devices stay.  `start` begins the next one."""
        self.process.kill(signal.SIGKILL)
        self.process.wait(30)

    def log(self):
        """What it has logged so far."""
        return self.process.output

    def ctl(self, *arguments, **how):
        """nbdctl ARGUMENTS; HOW as in Machine.run."""
        return self.machine.run(self.ctl_argv(*arguments), **how)

    def ctl_argv(self, *arguments):
        return [NBDCTL, f'--runtime-dir={self.runtime_dir}', *arguments]

    def attach(self, uri, **keys):
        """nbdctl attach; underscores in KEYS stand for hyphens.  The device's path."""
        options = [f'--{k.replace("_", "-")}={v}' for k, v in keys.items()]
        out = self.ctl('attach', uri, *options).out
        devices = [line for line in out.splitlines() if line.startswith('/dev/nbd')]
        assert len(devices) == 1, out           # warnings may stand beside it
        return devices[0]

    def detach(self, device, *options, **how):
        return self.ctl('detach', device, *options, **how)

    def status(self, device=None):
        """The device's object of `status --json`; without DEVICE the list of all."""
        devices = self.ask(device)['devices']
        if device is None:
            return devices
        assert len(devices) == 1, devices
        return devices[0]

    def ask(self, device):
        if not hasattr(self.machine, 'call'):
            answer = json.loads(self.ctl('status', *([device] if device else []), '--json').out)
            return answer if 'devices' in answer else {'devices': [answer]}
        # What nbdctl would ask; in a guest a process is dear, and this is asked all the time.
        reply = self.machine.call(self.socket, 'io.nbdd.Manager.Status',
                                  {'device': device} if device else {})
        assert 'error' not in reply, reply
        return reply['parameters']

    def state(self, device):
        return self.status(device)['state']

    def wait_state(self, device, state, timeout=10):
        """Wait until the device is in STATE (or one of a tuple); its status."""
        wanted = (state,) if isinstance(state, str) else state

        def reached():
            s = self.status(device)
            assert s['state'] in wanted, s
            return s
        return wait_until(reached, timeout, f'{device} to be {" or ".join(wanted)}')

    def zombies(self):
        return [p for p, (_, state) in self.machine.children(self.pid).items() if state == 'Z']

    def clear(self, but=()):
        """Detach what is attached, in use or not, BUT these (nbdN)."""
        for s in self.status():
            if s['device'][5:] not in but:
                self.detach(s['device'] or s['name'], '--force', check=False)

    def abandon(self):
        """End every nbdd that there is, however it is; devices stay."""
        for p in self.spawned:
            p.kill(signal.SIGKILL, group=True)

    def close(self):
        if self.process is None or self.process.rc is not None:
            return
        self.clear()
        self.process.kill(signal.SIGTERM)
        rc = self.process.wait(10)
        assert rc == 0, f'nbdd ended with {rc}\n{self.log()[-4000:]}'

    def __enter__(self):
        return self if self.process else self.start()

    def __exit__(self, kind, *_):
        self.machine.all_daemons.remove(self)
        if kind is None:
            self.close()
        else:                           # the test's own failure says more than ours would
            self.abandon()
            try:
                recover(self.machine)
            except Exception as e:
                print('not recovered:', e)


def attached(machine):
    """The kernel's names of the nbd devices that are attached, or that somebody still uses."""
    lines = machine.read('/proc/partitions').splitlines()[2:]
    return {name for name in (line.split()[3] for line in lines) if re.fullmatch(r'nbd\d+', name)}


def remember(machine):
    """What is there when a test begins is its module's, and stays whatever comes of it."""
    machine.kept = attached(machine), list(getattr(machine, 'workloads', ()))


def recover(machine):
    """A test has failed, and left whatever it had just done: end its writers, detach its
    devices, and wait until nobody uses one any more, so that the next test finds nothing."""
    devices, workloads = getattr(machine, 'kept', ((), ()))
    for w in getattr(machine, 'workloads', ()):
        if w not in workloads:
            w.kill()
    for d in getattr(machine, 'all_daemons', ()):
        try:
            if d.process and d.process.rc is None:
                d.clear(devices)
        except AssertionError:
            d.abandon()

    def free():
        left = attached(machine) - set(devices)
        for name in left:
            machine.run(['nbd-client', '-d', f'/dev/{name}'], check=False)
        return not left
    wait_until(free, 30, 'devices to be free', 0.3)
