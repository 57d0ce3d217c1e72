"""Waiting for something to become true, with a message worth reading when it does not."""
import time


def wait_until(condition, timeout=10, what=None, interval=0.02):
    """Call CONDITION until its value is true, and return that value.

    After TIMEOUT seconds fail, saying WHAT was waited for and which value or exception
    came last.  An AssertionError or OSError that CONDITION raises counts as `not yet`.
    """
    deadline = time.monotonic() + timeout
    while True:
        late = time.monotonic() >= deadline
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
        time.sleep(interval)


class Stopwatch:
    """Seconds since it was made: `watch = Stopwatch(); …; assert watch() < 2`."""

    def __init__(self):
        self.start = time.monotonic()

    def __call__(self):
        return time.monotonic() - self.start
