"""The clock of a quiet machine."""
import os
import subprocess

import pytest

from tests.harness.pace import SLOWEST, Pace, read_proc_stat
from tests.harness.wait import Stopwatch, wait_until


class Machine:
    """Two CPUs; `passes` lets time pass with so many processes and so much of it stolen."""

    def __init__(self):
        self.time, self.stolen, self.running = 100.0, 0.0, 0
        self.pace = Pace(lambda: (2 * self.time, self.stolen, self.running, 2),
                         lambda: self.time)

    def passes(self, seconds, running=1, stolen=0.0):
        self.running = running
        for _ in range(round(seconds * 10)):
            self.time += 0.1
            self.stolen += 0.2 * stolen
            self.pace.look()


@pytest.fixture
def machine():
    return Machine()


def test_on_a_quiet_machine_it_is_a_clock(machine):
    machine.passes(3, running=2)
    assert machine.pace.now() == pytest.approx(3)
    machine.time += 0.1
    assert machine.pace.now() == pytest.approx(3.1)


@pytest.mark.parametrize('running, stolen, slower', [(4, 0, 2), (1, 0.5, 2), (6, 0.75, 10),
                                                     (3, 0, 1.5), (50, 0.99, SLOWEST)])
def test_it_goes_slower_for_processes_that_share_and_time_that_is_stolen(machine, running,
                                                                          stolen, slower):
    machine.passes(10, running, stolen)
    assert machine.pace.now() == pytest.approx(10 / slower)


def test_of_something_that_took_long_it_tells_the_least(machine):
    machine.passes(10)
    since = machine.time
    machine.passes(10)
    machine.passes(4, running=8)
    machine.passes(10)
    assert machine.pace.least(2, since) == pytest.approx(0.5)
    assert machine.pace.least(6, since) == pytest.approx(3)
    assert machine.pace.least(2, machine.time - 3) == pytest.approx(2)
    assert machine.pace.of(since) == pytest.approx(10)
    assert machine.pace.of(since + 11) == pytest.approx(20.25)


@pytest.mark.slow
def test_this_machine_is_looked_at():
    total, stolen, running, cpus = read_proc_stat()
    assert total > 0 and 0 <= stolen < total and running >= 0 and cpus == os.cpu_count()
    busy = [subprocess.Popen(['sh', '-c', 'while :; do :; done']) for _ in range(3 * cpus)]
    try:
        watch = Stopwatch()
        wait_until(lambda: watch() > 3, 5)
        assert 0.05 < watch.quiet() < 1.6
    finally:
        for p in busy:
            p.kill()
            p.wait()
