"""The yardsticks do the work that they are said to measure, and find out when it is wrong."""
import struct

import pytest

from tests.bench import measure
from tests.harness import pieces
from tests.harness.nbd_proto import Cmd
from tests.harness.script_server import Export, Memory, Script, ScriptServer

OPERATIONS = 300
LIBRARY_ONLY = {'create', 'memory'}


def run(name, mode, uri, operations=OPERATIONS, *options):
    return measure.once(measure.CLIENTS[name], mode, uri, 0,
                        ['-V', '-n', operations, *options])


@pytest.fixture(scope='module', params=['unix', 'tcp'])
def uri(request):
    with measure.nullserver(request.param) as where:
        yield where


@pytest.fixture(scope='module')
def simple_uri():
    with measure.nullserver(simple=True) as where:
        yield where


def test_the_raw_limit_has_every_mode_that_is_not_about_a_library():
    assert set(measure.modes()) - \
        set(measure.modes(measure.CLIENTS[measure.RAW_LIMIT])) == LIBRARY_ONLY


def test_the_clients_use_the_library_that_they_are_named_for():
    loaded = {name: measure.loaded_library(c) for name, c in measure.CLIENTS.items()}
    build = str(measure.BUILD)
    assert loaded[measure.OURS].startswith(build)
    assert not loaded[measure.DISTRIBUTION].startswith(build)
    assert loaded[measure.RAW_LIMIT] is None


@pytest.mark.slow
@pytest.mark.parametrize('name', measure.CLIENTS)
def test_every_mode_gives_figures_and_right_data(uri, name):
    for mode in measure.modes(measure.CLIENTS[name]):
        figures = run(name, mode, uri)
        assert figures['mode'] == mode
        if mode == 'memory':
            assert 0 < figures['created'] <= figures['connected'] <= figures['used']
            continue
        # Operations in flight when it is enough are done, too.
        assert OPERATIONS <= figures['ops'] <= OPERATIONS + 1024, mode
        assert figures['cpu_ns'] > 0 and (figures['calls'] > 0) == (mode != 'create'), mode


@pytest.mark.parametrize('name', measure.LIBRARIES)
@pytest.mark.parametrize('mode', ['r4k_qd64', 'r256k_qd8', 'w4k_qd16', 'connect'])
def test_over_tls(name, mode):
    with measure.nullserver('tls') as uri:
        assert run(name, mode, uri, 20)['ops'] >= 20


@pytest.mark.parametrize('name', measure.CLIENTS)
@pytest.mark.parametrize('mode', ['sync_r4k', 'mix4k_qd64', 'r256k_qd8', 'r4k_qd4_x64'])
def test_without_structured_replies(simple_uri, uri, name, mode):
    """The server has none, and the client does not want any."""
    simple = run(name, mode, simple_uri, OPERATIONS, '-S')
    unwanted = run(name, mode, uri, OPERATIONS, '-S')
    assert simple['ops'] >= OPERATIONS and unwanted['ops'] >= OPERATIONS


def patterned(size):
    """An export of SIZE bytes that holds nullserver's pattern."""
    memory = Memory()
    memory.write(0, struct.pack(f'={size // 8}Q', *range(0, size, 8)))
    return Export(size=size, memory=memory)


@pytest.mark.parametrize('name', measure.CLIENTS)
def test_wrong_data_is_found(name):
    with ScriptServer(Script(Export(size=1 << 20))) as server:
        with pytest.raises(RuntimeError, match='wrong data at offset 8'):
            run(name, 'r4k_qd16', server.uri(), 16)


@pytest.mark.parametrize('structured', [False, True])
@pytest.mark.parametrize('how', [
    {'segment': 1}, {'segment': 4097},
    {'command': {Cmd.READ: pieces.gathered(16)}},
], ids=['byte by byte', 'in pieces', 'in reverse'])
def test_the_raw_limit_takes_replies_as_they_come(how, structured):
    script = Script(patterned(1 << 19), structured=structured, **how)
    with ScriptServer(script) as server:
        figures = run(measure.RAW_LIMIT, 'r4k_qd16', server.uri(), 16,
                      *['-S'] * (not structured))
    assert figures['ops'] == 16


def test_a_big_payload_in_pieces_is_put_together_by_the_raw_limit():
    with ScriptServer(Script(patterned(4 << 20), segment=50001)) as server:
        with pytest.raises(RuntimeError, match='wrong data at offset 1048576'):
            # The pattern repeats after 1 MiB, this export's does not.
            run(measure.RAW_LIMIT, 'r256k_qd8', server.uri(), 8)


@pytest.mark.parametrize('name', measure.CLIENTS)
@pytest.mark.parametrize('mode, size', [('w4k_qd16', 4096), ('w256k_qd8', 262144)])
def test_writes_arrive(name, mode, size):
    export = Export(size=4 << 20)
    with ScriptServer(Script(export, structured=False)) as server:
        ops = run(name, mode, server.uri(), 8, '-S')['ops']
    assert export.memory.read(0, ops * size) == b'\x5a' * (ops * size)


@pytest.mark.parametrize('change', [
    pieces.patched(0, '>I', 0x12345678), pieces.patched(4, '>I', 5),
    pieces.patched(8, '>Q', 1 << 40),
], ids=['magic', 'error', 'cookie'])
def test_the_raw_limit_ends_at_a_reply_that_it_does_not_expect(change):
    script = Script(patterned(1 << 20), structured=False, command={Cmd.READ: change})
    with ScriptServer(script) as server:
        with pytest.raises(RuntimeError, match='reply'):
            run(measure.RAW_LIMIT, 'r4k_qd1', server.uri(), 1, '-S')


def test_the_raw_limit_takes_two_system_calls_for_a_read(uri):
    assert run(measure.RAW_LIMIT, 'sync_r4k', uri)['calls'] < 2.1
