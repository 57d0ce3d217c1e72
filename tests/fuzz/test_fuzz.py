"""Random input ends no reader, and what comes out keeps its promises."""
import os
import pathlib
import subprocess

import pytest

from tests.harness.paths import BUILD

HERE = pathlib.Path(__file__).parent
TARGETS = sorted(p.stem for p in HERE.glob('fuzz_*.c'))
# Those of the library have a test of their own for that: test_fuzz_lib.py.
RANDOM = [t for t in TARGETS if not t.startswith('fuzz_lib_')]
# Under the sanitizers as well (NBDD_BUILD); NBDD_FUZZ_RUNS=1000000 for a long run.
RUNS = os.environ.get('NBDD_FUZZ_RUNS', '20000')


def fuzz(target, path, *arguments):
    corpus = HERE / 'corpus' / target.removeprefix('fuzz_')
    return subprocess.run([BUILD / 'tests' / target, *arguments, corpus], cwd=path,
                          capture_output=True, text=True, errors='replace')


@pytest.mark.parametrize('target', TARGETS)
def test_the_corpus_passes(target, tmp_path):
    r = fuzz(target, tmp_path)
    assert r.returncode == 0, r.stderr


@pytest.mark.fuzz
@pytest.mark.parametrize('target', RANDOM)
def test_random_input_passes(target, tmp_path):
    r = fuzz(target, tmp_path, '-n', RUNS, '-s', '1')
    crash = tmp_path / 'crash-input'
    assert r.returncode == 0, (r.stderr, crash.exists() and crash.read_bytes())
    assert r.stdout.endswith(f' files, {RUNS} inputs\n')
