"""A writer that reads back: verifier.c, on a file or device of a Host or Guest.

    w = Workload(guest, '/mnt/file', size='32M').start()
    … w.progress()['ops'], w.ops() …
    report = w.finish()         # no error, no mismatch, or it fails
"""
import json
import signal

from tests.harness.paths import VERIFIER
from tests.harness.wait import wait_until


class Workload:
    """OPTIONS are the verifier's, as keywords: size='32M', jobs=4, direct=True, log=…"""

    def __init__(self, machine, path, **options):
        self.machine, self.path, self.process = machine, str(path), None
        self.options = [f'--{k}' if v is True else f'--{k}={v}' for k, v in options.items() if v]

    def start(self):
        """Start it and return when it has done something."""
        self.process = self.machine.spawn([VERIFIER, *self.options, self.path])
        wait_until(lambda: self.ops() > 20, 30, 'the writer to write')
        return self

    def progress(self):
        """The counters of its latest report, at most 100 ms old."""
        lines = self.process.output.split('\n')[:-1]        # the last may be half
        for line in reversed(lines):
            if line.startswith('{'):
                return json.loads(line)
        assert self.process.rc is None, f'the writer ended early:\n{self.process.output}'
        return {'ops': 0, 'errors': 0, 'mismatches': 0, 'oldest_ms': 0, 'longest_ms': 0}

    def ops(self):
        return self.progress()['ops']

    def wait_stuck(self, ms=500, timeout=20):
        """Wait until an operation has been in flight for MS milliseconds."""
        wait_until(lambda: self.progress()['oldest_ms'] >= ms, timeout,
                   'an operation that waits for the server')

    def wait_flowing(self, timeout):
        """Wait until operations end again and none is left from before."""
        before = self.ops()
        wait_until(lambda: (p := self.progress())['ops'] > before + 20 and
                   p['oldest_ms'] < 500, timeout, 'I/O to flow again')

    def finish(self, timeout=60, good=True):
        """Stop it, let it check every block, return its last report."""
        self.process.kill(signal.SIGTERM)
        self.process.wait(timeout)
        report = self.progress()
        assert report.get('final'), self.process.output[-3000:]
        if good:
            assert (report['errors'], report['mismatches']) == (0, 0), \
                f'{report}\n{self.process.output[:3000]}'
        return report
