"""Whatever a server says, the library keeps its promises: under AddressSanitizer and
UndefinedBehaviorSanitizer, a while for each target."""
import os
import pathlib
import re
import subprocess

import pytest

from tests.harness.builds import sanitized
from tests.harness.paths import BUILD

HERE = pathlib.Path(__file__).parent
TARGETS = sorted(p.stem for p in HERE.glob('fuzz_lib_*.c'))
RECORDED = ('nbdkit', 'qemu', 'nbd-server', 'extended', 'pieces')
SECONDS = os.environ.get('NBDD_FUZZ_SECONDS', '15')


@pytest.fixture(scope='module')
def programs():
    return sanitized('address,undefined', *TARGETS)


def fuzz(program, path, *arguments):
    corpus = HERE / 'corpus' / program.name.removeprefix('fuzz_')
    r = subprocess.run([program, *arguments, corpus], cwd=path, capture_output=True, text=True,
                       errors='replace')
    crash = path / 'crash-input'
    assert r.returncode == 0, (r.stderr, crash.exists() and crash.read_bytes())
    return re.fullmatch(r'(\d+) files, (\d+) inputs\n', r.stdout)


@pytest.mark.fuzz
@pytest.mark.parametrize('target', TARGETS)
def test_random_input_is_survived(programs, target, tmp_path):
    ran = fuzz(programs[target], tmp_path, '-t', SECONDS)
    # A handshake takes its time, above all on a busy machine.
    least = 100 if target == 'fuzz_lib_tls' else 1000
    assert int(ran.group(1)) >= 9 and int(ran.group(2)) > least



@pytest.mark.parametrize('target', ['lib_session', 'lib_replies'])
def test_recorded_sessions_still_end_well(target, tmp_path):
    """A seed is worth little once the library would say other things than when it was made:
    then it is time for record.py."""
    seeds = [f for f in (HERE / 'corpus' / target).iterdir() if f.name.startswith(RECORDED)]
    assert len(seeds) >= 16
    r = subprocess.run([BUILD / 'tests' / f'fuzz_{target}', *seeds], cwd=tmp_path,
                       env={**os.environ, 'FUZZ_SERVERS_ARE_GOOD': '1'}, capture_output=True,
                       text=True)
    assert r.returncode == 0, r.stderr
