"""Waiting for something to become true, with a message worth reading when it does not."""
import time

from tests.harness import pace

# What is asked costs the machine that is asked: so much of the time waited for is between two
# questions; these are so many seconds at least, and at most.
PATIENCE, INTERVAL_MIN, INTERVAL_MAX = 0.1, 0.02, 0.25


def wait_until(condition, timeout=10, what=None, interval=None):
    """Call CONDITION until its value is true, and return that value.  It is called every
    INTERVAL seconds, by default first quickly and then less often.

    After TIMEOUT seconds of a quiet machine (pace.py) fail, saying WHAT was waited for and
    which value or exception came last.  An AssertionError or OSError that CONDITION raises
    counts as `not yet`.
    """
    watch = Stopwatch()
    while True:
        late = watch.quiet() >= timeout
        try:
            last = condition()
            if last:
                return last
            last = f'last value: {last!r}'
        except (AssertionError, OSError) as e:
            last = f'last exception: {type(e).__name__}: {e}'
        if late:
            name = what or getattr(condition, '__name__', 'the condition')
            raise AssertionError(f'waited {timeout} s for {name}; {last}')
        time.sleep(interval or min(max(INTERVAL_MIN, watch() * PATIENCE), INTERVAL_MAX))


class Stopwatch:
    """Seconds since it was made: `watch = Stopwatch(); …; assert watch() >= 2`.  What may take
    so long at most is held against those of a quiet machine: `assert watch.quiet() < 2`."""

    def __init__(self):
        self.start, self.own = time.monotonic(), pace.MACHINE.now()

    def __call__(self):
        return time.monotonic() - self.start

    def quiet(self):
        return pace.MACHINE.now() - self.own

    def quiet_part(self, seconds):
        """Of something since then that took SECONDS: how long it was on a quiet machine, at
        least."""
        return pace.MACHINE.least(seconds, self.start)
