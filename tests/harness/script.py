"""The scripted server as a process, so that it can run in a guest and be killed."""
import contextlib
import json

from tests.harness.paths import ROOT
from tests.harness.servers import Server


class Scripted(Server):
    """A server that does what a script of scripts.py says; `switch(NAME)` holds for the
    connections from then on."""

    def __init__(self, machine, script='lasting', size=64 << 20, **address):
        super().__init__(machine, **({'tcp': True} | address))
        self.size = size
        number = machine.scripted = getattr(machine, 'scripted', 0) + 1
        self.control = f'{machine.path}/script{number}'
        self.log_path = f'{machine.path}/script{number}.log'
        self.switch(script)

    def switch(self, script):
        # Written by the machine itself, which then sees it at once.
        self.machine.write(self.control, script)
        self.script = script

    def argv(self):
        at = f'unix:{self.socket}' if self.socket else f'tcp:127.0.0.1:{self.port}'
        return ['env', f'PYTHONPATH={ROOT}', '/usr/bin/python3', '-B', '-s', '-m',
                'tests.harness.script_server', '--listen', at, '--size', self.size,
                '--export', self.export, '--script', f'@{self.control}', '--log', self.log_path]

    def events(self):
        """What clients did: the lines of its log."""
        return [json.loads(line) for line in self.machine.read(self.log_path).splitlines()]


@contextlib.contextmanager
def scripted(machine, script, **how):
    with Scripted(machine, script, **how) as server:
        yield server
