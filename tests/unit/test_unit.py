"""Each test of the C programs beside this file, in a process of its own."""
import pathlib
import re
import subprocess

import pytest

from tests.harness.paths import BUILD

TESTS = [(source.stem, name) for source in sorted(pathlib.Path(__file__).parent.glob('test_*.c'))
         for name in re.findall(r'^TEST\((\w+)\)', source.read_text(), re.M)]


@pytest.mark.parametrize('program, name', TESTS)
def test_unit(program, name):
    r = subprocess.run([BUILD / 'tests' / 'unit' / program, name], capture_output=True,
                       text=True, timeout=60)
    assert r.returncode == 0, r.stdout + r.stderr


def test_a_failing_check_is_seen(tmp_path):
    root = pathlib.Path(__file__).resolve().parents[2]
    source = tmp_path / 'x.c'
    source.write_text('#include "tests/unit/unit.h"\nTEST(x)\n{\n\tCHECK_INT(1 + 1, 3);\n}\n')
    subprocess.run(['gcc', '-I', root, '-o', tmp_path / 'x', source, root / 'tests/unit/main.c'],
                   check=True)
    r = subprocess.run([tmp_path / 'x', 'x'], capture_output=True, text=True)
    assert (r.returncode, r.stderr) == (1, f'{source}:4: 1 + 1 is 2, expected 3\n')
    assert subprocess.run([tmp_path / 'x', 'y'], capture_output=True).returncode == 1
