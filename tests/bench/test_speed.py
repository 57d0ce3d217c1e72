"""Promises on speed, as ratios to the distribution's library in the same interleaved run."""
import pytest

from tests.bench import measure
from tests.harness.servers import Nbdkit

pytestmark = pytest.mark.bench

# Another try measures longer: on a busy machine more rounds are needed for a median.
TRIES = ((3, 0.2), (7, 0.3), (15, 0.5))         # (rounds, seconds)


def holds(mode, promise, transport='unix', simple=False):
    """Measure until PROMISE(samples) is kept: it gives None, or what is wrong."""
    with measure.nullserver(transport, simple) as uri:
        for rounds, seconds in TRIES:
            samples = measure.interleaved(uri, [mode], rounds, seconds,
                                          options=['-S'] if simple else [])
            wrong = promise(samples)
            if wrong is None:
                return
    pytest.fail(wrong)


def at_least(mode, factor):
    def promise(samples):
        found = measure.ratio(samples, mode)
        return None if found >= factor else \
            f'{mode}: {found:.2f} times less CPU than the distribution, not {factor}'
    return promise


def calls_at_most(mode, limit):
    def promise(samples):
        found = measure.median(samples, measure.OURS, mode, 'calls')
        return None if found <= limit else \
            f'{mode}: {found:.2f} system calls an operation, more than {limit}'
    return promise


def test_the_two_libraries_are_different_ones():
    ours, theirs = (measure.loaded_library(measure.LIBRARIES[name])
                    for name in (measure.OURS, measure.DISTRIBUTION))
    assert ours.startswith(str(measure.BUILD)) and not theirs.startswith(str(measure.BUILD))


@pytest.mark.parametrize('simple', [False, True])
def test_reads_at_depth_64_take_a_third_of_the_cpu_at_most(simple):
    holds('r4k_qd64', at_least('r4k_qd64', 3), simple=simple)


def test_a_read_that_is_waited_for_takes_three_system_calls_at_most():
    holds('sync_r4k', calls_at_most('sync_r4k', 3))


@pytest.mark.parametrize('size, factor, export', [(4096, 1.3, '64M'), (262144, 0.9, '256M')])
def test_nbdcopy_is_no_slower_and_clearly_faster_with_small_requests(host, size, factor, export):
    """CPU time of the distribution's program on each library."""
    with Nbdkit(host, ['null', export]) as server:
        for rounds, _ in TRIES:
            found = measure.copy_ratio(server.uri, size, rounds)
            if found >= factor:
                return
    pytest.fail(f'nbdcopy --request-size={size}: {found:.2f} times less CPU, not {factor}')


@pytest.mark.parametrize('mode, factor', [('r4k_qd64', 1.6), ('w4k_qd64', 1.6),
                                          ('r256k_qd8', 1.1), ('w256k_qd8', 1.05)])
def test_tls_costs_less_than_on_the_distributions_library(mode, factor):
    holds(mode, at_least(mode, factor), transport='tls')


@pytest.mark.parametrize('simple', [False, True])
def test_reads_at_depth_64_take_half_a_system_call_at_most(simple):
    holds('r4k_qd64', calls_at_most('r4k_qd64', 0.5), simple=simple)
