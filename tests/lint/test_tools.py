"""What other programs say about the sources."""
import os
import subprocess

import pytest

from tests.harness.paths import BUILD, ROOT
from tests.lint.sources import PRODUCT, files


@pytest.mark.slow
def test_cppcheck_finds_nothing(tmp_path):
    # Not through compile_commands.json: its configurations take minutes.
    folders = [f for f in PRODUCT if (ROOT / f).is_dir()]
    r = subprocess.run(
        ['cppcheck', '-q', f'-j{os.cpu_count()}', '--std=c11', '-D_GNU_SOURCE', '-D__linux__',
         '-I.', f'-I{BUILD}/include',
         # Its macros are not understood unless it is seen; system headers are not.
         '--include=/usr/include/x86_64-linux-gnu/sys/queue.h', '--enable=warning,performance,portability',
         '--inline-suppr', '--error-exitcode=1', '--suppress=missingIncludeSystem',
         '--template={file}:{line}: {id}: {message}', *folders],
        cwd=ROOT, capture_output=True, text=True)
    assert r.returncode == 0, r.stdout + r.stderr


def scripts():
    """Executable text files of the tree, by their first line."""
    for name in files():
        if os.access(ROOT / name, os.X_OK):
            with open(ROOT / name, 'rb') as f:
                first = f.readline(80)
            if first.startswith(b'#!'):
                yield name, first.decode().strip()


def test_scripts_parse():
    checks = {'bash': ['bash', '-n'], 'sh': ['sh', '-n']}
    seen = 0
    for name, first in scripts():
        check = checks.get(first.split('/')[-1].split()[0])
        if check:
            seen += 1
            r = subprocess.run([*check, ROOT / name], capture_output=True, text=True)
            assert r.returncode == 0, r.stderr
    assert seen >= 3


def test_python_sources_compile():
    for name in files('*.py', 'SConstruct', '*SConscript'):
        compile((ROOT / name).read_text(), name, 'exec')
