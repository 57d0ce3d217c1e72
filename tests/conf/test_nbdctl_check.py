"""`nbdctl check FILE` says what the readers say."""
import subprocess

import pytest

from tests.conf.test_check import CONF, GOOD_LINE, TAB
from tests.harness.paths import NBDCTL


def nbdctl_check(path):
    return subprocess.run([NBDCTL, 'check', path], capture_output=True, text=True, timeout=30)


CASES = [('nbdd.conf', text, problem) for text, problem in CONF.values()]
CASES += [('nbdtab', f'{line}\n{GOOD_LINE}', problem) for line, problem in TAB.values()]


@pytest.mark.parametrize('name, text, problem', CASES, ids=[*CONF, *(f'nbdtab {n}' for n in TAB)])
def test_nbdctl_check_tells_the_problem(name, text, problem, tmp_path):
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    r = nbdctl_check(path)
    assert r.stderr == f'{path}{problem[1:]}\n'
    assert r.returncode == 1


def test_nbdctl_check_of_a_sound_file_succeeds(tmp_path):
    path = tmp_path / 'nbdtab'
    path.write_text(GOOD_LINE)
    r = nbdctl_check(path)
    assert (r.returncode, r.stderr) == (0, '')
