"""The manual: every page is sound troff, and nbdd.conf(5) tells every key."""
import re
import subprocess

import pytest

from tests.harness.paths import BUILD, ROOT

MAN = BUILD / 'man'
PAGES = sorted(p.name.removesuffix('.in') for p in (ROOT / 'man').glob('*.[1-8]*'))


def man(*arguments):
    return subprocess.run(['man', '-E', 'UTF-8', *arguments], capture_output=True, text=True,
                          cwd=MAN, env={'PATH': '/usr/bin:/bin', 'LC_ALL': 'C.UTF-8',
                                        'MANWIDTH': '400', 'MANROFFOPT': '-c'})


@pytest.mark.parametrize('page', PAGES)
def test_page_has_no_troff_warning(page):
    path = MAN / f'man{page[-1]}' / page
    r = man('--warnings', '-l', '-Tutf8', '-Z', path)
    assert (r.returncode, r.stderr) == (0, '') and len(r.stdout) > 500


def test_the_check_sees_a_troff_warning(tmp_path):
    page = tmp_path / 'x.1'
    page.write_text('.TH X 1\n.SH NAME\nx \\- y\n.nosuchrequest\n')
    assert 'nosuchrequest' in man('--warnings', '-l', '-Tutf8', '-Z', page).stderr


def shown(page, section):
    r = man('-P', 'cat', '-M', MAN, section, page)
    assert r.returncode == 0, r.stderr
    return re.sub('.\b', '', r.stdout)


def test_every_key_is_in_the_manual_with_its_default():
    table = (ROOT / 'conf' / 'keys.c').read_text()
    keys = re.findall(r'^\t\{ "([a-z-]+)", CONF_', table, re.M)
    assert len(keys) > 20
    text = shown('nbdd.conf', '5')
    for key in keys:
        assert re.search(rf'^ +{key} = \S', text, re.M), key
    assert text.count('Default: ') == len(keys) + 1        # and auto


def test_nbdtab_has_a_page_of_its_own_that_names_every_spelling():
    text = shown('nbdtab', '5')
    table = (ROOT / 'conf' / 'keys.c').read_text()
    names = re.findall(r'^\t\{ "([a-z_-]+)"(?:, \.| \})', table[table.index('conf_aliases'):], re.M)
    assert len(names) >= 10
    for name in names:
        assert re.search(rf'\b{name}\b', text), name
