"""Each call of the table from OCaml; the texts; what compiles."""
import re
import sys

import pytest

from tests.harness.paths import ROOT
from tests.ocaml.programs import STAGE, command, needs_ocaml, packages, program, run

sys.path[:0] = [str(ROOT / 'lib'), str(ROOT / 'contrib' / 'ocaml' / 'nbd')]
from api import CALLS                                                   # noqa: E402
from generate import BY_HAND, bindable                                  # noqa: E402

pytestmark = needs_ocaml
# OCaml has them as exceptions, and frees for itself.
NOT_IN_OCAML = {'get_error', 'get_errno', 'uri_free'}
NAMES = [c.name for c in CALLS
         if c.name not in NOT_IN_OCAML and (c.name in BY_HAND or bindable(c))]


@pytest.fixture(scope='module')
def results(kit, extended, tcp, psk):
    server, keys = psk
    out = run(program('calls'), kit.socket, extended.path, tcp.port, server.socket, keys)
    return dict(re.fullmatch(r'((?:not )?ok) (\w+)(.*)', line).group(2, 0)
                for line in out.splitlines())


@pytest.mark.parametrize('name', NAMES)
def test_call(results, name):
    assert results.get(name, 'is not tested') == f'ok {name}'


def test_all_of_libnbd_is_there():
    assert {c.name for c in CALLS if not c.own} <= set(NAMES) | NOT_IN_OCAML


def test_every_test_is_of_a_call(results):
    assert set(results) == set(NAMES)


def test_documentation_is_understood(tmp_path):
    """ocamldoc reads the comments, references included, and has the text of each call."""
    packages()
    out = command('ocamlfind', 'ocamldoc', '-package', 'unix', '-I', STAGE / 'nbd', '-warn-error',
                  '-html', '-d', tmp_path, STAGE / 'nbd' / 'NBD.mli', STAGE / 'nbd' / 'NBDD.mli')
    assert out == ''
    html = (tmp_path / 'NBD.html').read_text() + (tmp_path / 'NBDD.html').read_text()
    assert [n for n in NAMES if f'id="VAL{n}"' not in html] == []
    assert 'Read into several buffers' in html
