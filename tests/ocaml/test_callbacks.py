"""Callbacks, exceptions, the collector, threads; and all of it with a heap that always moves."""
import pathlib
import re

import pytest

from tests.harness.servers import Nbdkit
from tests.ocaml.programs import needs_ocaml, program, run

pytestmark = [needs_ocaml, pytest.mark.slow]
HERE = pathlib.Path(__file__).parent


@pytest.fixture
def callbacks():
    return program('callbacks', 'nbd,threads', ('-thread',))


def test_exceptions_in_callbacks_are_printed_and_fail_the_request(callbacks, kit):
    _, told = run(callbacks, 'exceptions', kit.socket, wrapper=['env'])
    lines = told.splitlines()
    assert all(re.fullmatch(r'libnbd: (\w+): uncaught OCaml exception: .*', s) for s in lines)
    kinds = {s.split()[1].rstrip(':') for s in lines}
    assert kinds == {'chunk', 'extent', 'extent64', 'debug', 'completion', 'list', 'context'}
    assert 'libnbd: chunk: uncaught OCaml exception: Not_found' in lines


@pytest.mark.parametrize('name', ['close_within', 'collected', 'kept', 'close_across', 'signals'])
def test_lifetimes(callbacks, kit, name):
    assert run(callbacks, name, kit.socket) == ''


def test_the_runtime_is_free_while_the_library_waits(callbacks, machine):
    with Nbdkit(machine, ['memory', '1M', 'rdelay=250ms'],
                options=['--filter=delay']) as slow:
        run(callbacks, 'threads', slow.socket)


def test_nothing_is_held_behind_the_collector(kit):
    """Compaction at each step, under valgrind: no stale pointer, no leak in the stubs."""
    stress = program('stress')
    assert run(stress, kit.socket, 3) == 'all is well\n'
    out, told = run(stress, kit.socket, 1, timeout=120, wrapper=[
        'valgrind', '-q', '--error-exitcode=9', '--leak-check=full',
        f'--suppressions={HERE}/runtime.supp',
        '--errors-for-leak-kinds=definite', '--show-leak-kinds=definite'])
    assert out == 'all is well\n'
    assert [s for s in told.splitlines() if s.startswith('==')] == []


@pytest.mark.soak
def test_nothing_is_held_behind_the_collector_for_long(kit):
    assert run(program('stress'), kit.socket, 300, timeout=600) == 'all is well\n'
