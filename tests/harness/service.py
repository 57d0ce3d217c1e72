"""nbdd under a service manager (init.py), which keeps its descriptors and starts it again.

    with Service(guest) as s:
        s.kill(signal.SIGKILL)      # until the next one is ready
"""
import re
import signal

from tests.harness.daemon import Daemon, START_TIMEOUT
from tests.harness.paths import HARNESS
from tests.harness.wait import wait_until


class Service(Daemon):
    """INSTEAD_OF a Daemon that no service manager has started: with its files, and with a
    socket unit, which takes its path."""

    def __init__(self, machine, instead_of=None, **how):
        super().__init__(machine, **how)
        listen = []
        if instead_of:
            for name in ('runtime_dir', 'config_path', 'nbdtab_path'):
                setattr(self, name, getattr(instead_of, name))
            listen = [f'--listen={self.socket}']
        self.wrapper = ['/usr/bin/python3', '-B', '-E', '-s', HARNESS / 'init.py', *listen,
                        '/run']

    def events(self, word):
        """Of each event WORD, the text after it."""
        return re.findall(rf'^init: {word} (.*)$', self.log(), re.M)

    @property
    def pid(self):
        return max((m.start(), int(m.group(1))) for m in
                   re.finditer(r'^init: (?:started|main) (\d+)', self.log(), re.M))[1]

    def kill(self, sig=signal.SIGKILL):
        """End the daemon by SIG and return when the next one is ready."""
        before, pid = len(self.events('ready')), self.pid
        self.machine.kill(pid, sig)
        if sig == signal.SIGTERM:       # as systemd does, so that one that is stopped ends, too
            self.machine.kill(pid, signal.SIGCONT)
        wait_until(lambda: len(self.events('ready')) > before, START_TIMEOUT * 2,
                   'the next nbdd')
