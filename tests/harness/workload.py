"""A writer that reads back: verifier.c, on a file or device of a Host or Guest.

    w = Workload(guest, '/mnt/file', size='32M').start()
    … w.progress()['ops'], w.ops() …
    report = w.finish()         # no error, no mismatch, or it fails
"""
import bisect
import json
import signal

from tests.harness.paths import VERIFIER
from tests.harness.wait import wait_until


class Workload:
    """OPTIONS are the verifier's, as keywords: size='32M', jobs=4, direct=True, log=…
    One that `rests` leaves most of a guest's one CPU to others; half of the time nothing of it
    is in flight, so it is for tests with many outages.  One that is `busy` leaves nothing."""

    def __init__(self, machine, path, **options):
        self.machine, self.path, self.process = machine, str(path), None
        self.reports, self.taken = [], 0
        self.options = [f'--{k}' if v is True else f'--{k}={v}' for k, v in options.items() if v]
        machine.workloads = [*getattr(machine, 'workloads', ()), self]

    def start(self):
        """Start it and return when it has done something."""
        self.process = self.machine.spawn([VERIFIER, *self.options, self.path])
        self.reports, self.taken = [], 0
        wait_until(lambda: self.ops() > 20, 30, 'the writer to write')
        return self

    def kill(self):
        """End it at once; what it has found does not matter any more."""
        if self.process:
            self.process.kill(signal.SIGKILL)

    def progress(self):
        """The counters of its latest report, at most 100 ms old."""
        self.take_reports()
        if self.reports:
            return self.reports[-1]
        assert self.process.rc is None, f'the writer ended early:\n{self.process.output}'
        return {'ops': 0, 'errors': 0, 'mismatches': 0, 'oldest_ms': 0, 'longest_ms': 0}

    def take_reports(self):
        """Add what it has reported since the last time: it is asked for all the time."""
        with open(self.process.output_file, 'rb') as file:
            file.seek(self.taken)
            new = file.read()
        new = new[:new.rfind(b'\n') + 1]           # the last line may be half
        self.taken += len(new)
        self.reports += [json.loads(line) for line in new.splitlines() if line.startswith(b'{')]

    def ops(self):
        return self.progress()['ops']

    def wait_stuck(self, ms=500, timeout=20):
        """Wait until an operation has been in flight for MS milliseconds."""
        wait_until(lambda: self.progress()['oldest_ms'] >= ms, timeout,
                   'an operation that waits for the server')

    def now_ms(self):
        """The machine's time as in `at_ms`."""
        return int(float(self.machine.read('/proc/uptime').split()[0]) * 1000)

    def wait_flowing(self, timeout, since_ms=None):
        """Wait until everything that was in flight at SINCE_MS (default: now) has ended and
        more has been done since.  Returns after how many seconds that was so, to 0.1 s."""
        since = since_ms or self.now_ms()

        def flowing():
            self.take_reports()
            n = bisect.bisect(self.reports, since, key=lambda r: r['at_ms'])
            for r in self.reports[n:]:
                begun = r['at_ms'] - r['oldest_ms']
                if r['ops'] > self.reports[n - 1]['ops'] and \
                        (r['oldest_ms'] == 0 or begun > since):
                    return r
            return None
        report = wait_until(flowing, timeout, 'I/O to flow again')
        return (report['at_ms'] - since) / 1000

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
