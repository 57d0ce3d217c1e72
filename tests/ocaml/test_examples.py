"""contrib/ocaml/examples: they do what they say, with the distribution's module, too."""
import os
import pathlib
import shutil
import subprocess

import pytest

from tests.harness.paths import ROOT
from tests.harness.servers import Nbdkit
from tests.ocaml.programs import ENVIRONMENT, PROGRAMS, needs_ocaml, packages

pytestmark = [needs_ocaml, pytest.mark.slow]
EXAMPLES = sorted((ROOT / 'contrib' / 'ocaml' / 'examples').glob('*.ml'))
THEIRS = pathlib.Path('/usr/lib/ocaml/nbd/mlnbd.cmxa')
MODULES = ['ours', pytest.param('theirs', marks=pytest.mark.skipif(
    not THEIRS.exists(), reason="the distribution's libnbd-ocaml-dev is not there"))]
WITHOUT = {k: v for k, v in os.environ.items() if k not in ('LD_LIBRARY_PATH', 'OCAMLPATH')}


@pytest.fixture(scope='module', params=MODULES)
def example(request):
    """example(NAME, arguments…): its output, compiled against one module or the other."""
    packages()
    env = ENVIRONMENT if request.param == 'ours' else WITHOUT
    directory = PROGRAMS / f'examples-{request.param}-{os.getpid()}'
    directory.mkdir()

    def run(name, *arguments, status=0):
        program = directory / name
        if not program.exists():
            shutil.copy(ROOT / 'contrib' / 'ocaml' / 'examples' / f'{name}.ml', directory)
            subprocess.run(['ocamlfind', 'ocamlopt', '-package', 'nbd', '-linkpkg', f'{name}.ml',
                            '-o', name], cwd=directory, env=env, check=True, timeout=60)
        r = subprocess.run([program, *map(str, arguments)], env=env, capture_output=True,
                           text=True, timeout=60)
        assert r.returncode == status, (r.returncode, r.stdout, r.stderr)
        return r.stdout
    run.module = request.param
    yield run
    shutil.rmtree(directory)


@pytest.fixture(scope='module')
def named(machine):
    with Nbdkit(machine, ['memory', '1M', 'exportname=a', 'exportname=b', 'exportname-strict=true',
                          'exportname-list=explicit'], options=['--filter=exportname']) as s:
        yield s.uri


@pytest.fixture(scope='module')
def sparse(machine):
    with Nbdkit(machine, ['sparse-random', '16M', 'seed=1', 'runlength=65536']) as server:
        yield server


def test_all_examples(example, named, sparse, kit, machine):
    size = 16 << 20
    ran = {
        'size': example('size', kit.uri),
        'exports': example('exports', named),
        'options': example('options', named, 'x', 'b', 'a'),
        'extents': example('extents', sparse.uri),
        'server': example('server', 'nbdkit', '-s', '--exit-with-parent', 'memory', '1M'),
    }
    assert ran['size'] == '8388608 bytes, newstyle-fixed, writable\n'
    assert ran['exports'] == '"a": 1048576 bytes\n"b": 1048576 bytes\n'
    assert ran['options'] == 'x: no\nusing b, allocation known\n'
    lines = [line.split(None, 2) for line in ran['extents'].splitlines()]
    assert len(lines) > 4 and sum(int(n) for _, n, _ in lines) == size
    assert ran['server'] == 'as written\n'
    target = machine.path / 'target'
    with open(target, 'wb') as f:
        f.truncate(size)
    with Nbdkit(machine, ['file', target]) as server:
        ran['copy'] = example('copy', sparse.uri, server.uri)
    assert ran['copy'] == f'{size} bytes\n'
    if example.module == 'ours':        # libnbd 1.14's module crashes in it
        ran['sum'] = example('sum', sparse.uri)
        assert ran['sum'] == f'{size} bytes, sum {sum(target.read_bytes())}\n'
        assert set(ran) == {p.stem for p in EXAMPLES}
    assert 'x: no' in example('options', named, 'x', status=2)
