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
    def __init__(self, machine, **how):
        super().__init__(machine, **how)
        self.wrapper = ['/usr/bin/python3', '-B', '-E', '-s', HARNESS / 'init.py', '/run']

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
