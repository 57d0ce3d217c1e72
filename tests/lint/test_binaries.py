"""What the built programs and the library show to the outside."""
import re
import subprocess

import pytest

from tests.harness.paths import BUILD


def test_the_library_exports_only_its_interface():
    library = BUILD / 'libnbd.so.0'
    out = subprocess.run(['nm', '-D', '--defined-only', '--with-symbol-versions', library],
                         check=True, capture_output=True, text=True).stdout
    wrong, good = [], 0
    for line in out.splitlines():
        kind, name = line.split(' ', 2)[1:]
        if kind == 'A':                 # the version nodes themselves
            continue
        if re.fullmatch(r'nbd_\w+@@LIBNBD_1\.\d+|nbdd_\w+@@NBDD_\d+\.\d+', name):
            good += 1
        else:
            wrong.append(line)
    assert not wrong, '\n'.join(wrong)
    assert good > 50


@pytest.mark.parametrize('name', ['nbdd', 'nbdctl', 'libnbd.so.0'])
def test_binaries_are_hardened(name):
    out = subprocess.run(['readelf', '-dlW', BUILD / name], check=True, capture_output=True,
                         text=True).stdout
    assert 'GNU_RELRO' in out and 'NOW' in out
    stack = next(line for line in out.splitlines() if 'GNU_STACK' in line)
    assert 'RWE' not in stack
    if name != 'libnbd.so.0':
        assert 'PIE' in out, f'{name} is not position independent'


def test_the_library_needs_gnutls_and_libxml2_alone():
    out = subprocess.run(['readelf', '-d', BUILD / 'libnbd.so.0'], check=True,
                         capture_output=True, text=True).stdout
    needed = set(re.findall(r'NEEDED.*\[(.*?)\.so', out))
    assert needed <= {'libgnutls', 'libxml2', 'libc', 'ld-linux-x86-64'}
