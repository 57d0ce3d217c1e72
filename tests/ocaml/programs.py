"""OCaml programs of the tests, compiled against contrib/ocaml as it would be installed.

    run(program('calls'), …)

Both the packages and each program are built once in a test run, by whichever worker comes
first, and only when something has changed.
"""
import fcntl
import functools
import hashlib
import os
import pathlib
import shutil
import subprocess

import pytest

from tests.harness.paths import ROOT

HERE = pathlib.Path(__file__).parent
BUILD = ROOT / 'build'
STAGE = BUILD / 'ocaml' / 'stage' / 'lib'
PROGRAMS = BUILD / 'ocaml' / 'programs'
TOOLS = ('dune', 'ocamlfind', 'ocamlopt')
# The distribution's package of the same name must not be seen, neither now nor at run time.
ENVIRONMENT = {**os.environ, 'OCAMLPATH': str(STAGE), 'LD_LIBRARY_PATH': str(BUILD),
               'OCAMLFIND_IGNORE_DUPS_IN': '/usr/lib/ocaml',
               'CAML_LD_LIBRARY_PATH': str(STAGE / 'stublibs')}
STRICT = ['-w', '+a-4-9-40..42-44-45-70', '-warn-error', '+a']


def missing():
    return [t for t in TOOLS if not shutil.which(t)]


needs_ocaml = pytest.mark.skipif(
    bool(missing()), reason=f'not on this machine: {", ".join(missing())} (contrib/deps test)')


def command(*argv, cwd=None, timeout=240):
    r = subprocess.run([str(a) for a in argv], cwd=cwd, env=ENVIRONMENT, text=True,
                       capture_output=True, timeout=timeout)
    assert r.returncode == 0, f'{argv}: {r.stdout}{r.stderr}'
    return r.stdout


def packages():
    """Build contrib/ocaml; a number that changes with what was built."""
    digest, error = build()
    assert error is None, error
    return digest


@functools.cache
def build():
    """(that number, None), or (None, what went wrong); tried once."""
    try:
        return build_packages(), None
    except AssertionError as error:
        return None, str(error)


def build_packages():
    PROGRAMS.mkdir(parents=True, exist_ok=True)
    with open(PROGRAMS / '.lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        command('scons', '-Q', '-s', 'ocaml', cwd=ROOT)
        digest = hashlib.sha256()
        for archive in sorted(STAGE.glob('*/*.cmxa')) + sorted(STAGE.glob('*/*.a')) + sorted(
                STAGE.glob('*/*.cmi')):
            digest.update(archive.read_bytes())
    return digest.hexdigest()


@functools.cache
def program(name, package='nbd', flags=()):
    """The native program made from NAME.ml of this directory."""
    built = packages()
    source = HERE / f'{name}.ml'
    digest = hashlib.sha256((built + repr(flags)).encode() + source.read_bytes()).hexdigest()
    directory = PROGRAMS / name
    out = directory / digest[:16]
    with open(PROGRAMS / f'.{name}.lock', 'w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not out.exists():
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
            shutil.copy(source, directory)
            # Not beside the source: the compiler leaves files there.
            command('ocamlfind', 'ocamlopt', *STRICT, *flags, '-package', package, '-linkpkg',
                    f'{name}.ml', '-o', f'{out}.new', cwd=directory)
            os.rename(f'{out}.new', out)
    return out


def run(path, *arguments, status=0, timeout=60, env=None, wrapper=()):
    """What the program printed; (stdout, stderr) if it was to fail."""
    r = subprocess.run([str(a) for a in (*wrapper, path, *arguments)], text=True,
                       env={**ENVIRONMENT, **(env or {})}, capture_output=True, timeout=timeout)
    assert r.returncode == status, (r.returncode, r.stdout, r.stderr)
    return r.stdout if status == 0 and not wrapper else (r.stdout, r.stderr)
