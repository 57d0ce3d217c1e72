"""The OCaml stubs follow from the table, whatever is added to it."""
import pathlib
import subprocess
import sys

import pytest

from tests.harness.paths import BUILD, ROOT

BINDING = ROOT / 'contrib' / 'ocaml' / 'nbd'
HEADERS = pathlib.Path('/usr/lib/ocaml')


def test_stubs_can_be_made_and_compiled(tmp_path):
    subprocess.run([sys.executable, '-B', BINDING / 'generate.py', ROOT / 'lib'], cwd=tmp_path,
                   check=True)
    if not (HEADERS / 'caml' / 'mlvalues.h').exists():
        pytest.skip('there are no headers of OCaml')
    subprocess.run(['gcc', '-std=gnu17', '-Wall', '-Werror', '-fsyntax-only', f'-I{HEADERS}',
                    f'-I{BUILD}/include', f'-I{BINDING}', 'stubs.c'], cwd=tmp_path, check=True)
