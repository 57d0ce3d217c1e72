"""Random input ends no reader, and what comes out keeps its promises: configuration, control
protocol, netlink, sysfs and the rest of the daemon's, under AddressSanitizer and
UndefinedBehaviorSanitizer."""
import os
import pathlib
import re
import subprocess

import pytest

from tests.harness.builds import sanitized
from tests.harness.paths import BUILD

HERE = pathlib.Path(__file__).parent
TARGETS = sorted(p.stem for p in HERE.glob('fuzz_*.c'))
# Those of the library have a test of their own for that: test_fuzz_lib.py.
RANDOM = [t for t in TARGETS if not t.startswith('fuzz_lib_')]
# NBDD_FUZZ_SECONDS=3600 for a long run.
SECONDS = os.environ.get('NBDD_FUZZ_SECONDS', '15')


def fuzz(program, path, *arguments):
    corpus = HERE / 'corpus' / program.name.removeprefix('fuzz_')
    return subprocess.run([program, *arguments, corpus], cwd=path, capture_output=True,
                          text=True, errors='replace')


@pytest.mark.parametrize('target', TARGETS)
def test_the_corpus_passes(target, tmp_path):
    r = fuzz(BUILD / 'tests' / target, tmp_path)
    assert r.returncode == 0, r.stderr


@pytest.fixture(scope='module')
def programs():
    return sanitized('address,undefined', *RANDOM)


@pytest.mark.fuzz
@pytest.mark.parametrize('target', RANDOM)
def test_random_input_passes(programs, target, tmp_path):
    r = fuzz(programs[target], tmp_path, '-t', SECONDS)
    crash = tmp_path / 'crash-input'
    assert r.returncode == 0, (r.stderr, crash.exists() and crash.read_bytes())
    assert int(re.fullmatch(r'\d+ files, (\d+) inputs\n', r.stdout).group(1)) > 100
