"""The manual's pages are well formed, and say what the program says."""
import re
import subprocess

import pytest

from tests.harness.paths import BUILD, NBDCTL

PAGES = sorted((BUILD / 'man').glob('man*/*'))


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.name)
def test_a_page_formats_without_a_warning(page):
    r = subprocess.run(['man', '--warnings', '-E', 'UTF-8', '-l', '-Tutf8', '-Z', page],
                       stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                       cwd=BUILD / 'man')           # where `.so man5/...` looks
    assert (r.returncode, r.stderr) == (0, '')
    text = subprocess.run(['man', '-E', 'UTF-8', '-l', page], capture_output=True, text=True,
                          cwd=BUILD / 'man', env={'MANWIDTH': '80', 'PATH': '/usr/bin:/bin'}).stdout
    assert text and not re.search('@[A-Z]+@', text), 'a word was not filled in'


def test_nbdctl_8_has_every_verb_and_option():
    text = (BUILD / 'man/man8/nbdctl.8').read_text().replace('\\-', '-')
    help_text = subprocess.run([NBDCTL, '--help'], capture_output=True, text=True).stdout
    verbs = re.findall(r'^  ([a-z]+)  ', help_text, re.M)
    assert len(verbs) >= 6
    for verb in verbs:
        assert f'\\fB{verb}\\fR' in text
        options = subprocess.run([NBDCTL, verb, '--help'], capture_output=True, text=True).stdout
        for option in re.findall(r'^  (--[a-z-]+)', options.split('Keys, as')[0], re.M):
            assert option in text, f'{verb} {option}'
