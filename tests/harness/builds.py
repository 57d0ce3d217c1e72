"""Programs built with a sanitizer, for the tests that need one.

    program = sanitized('address,undefined', 'fuzz_lib_wire')['fuzz_lib_wire']

They come from the same SConscript files, in a build directory of their own; only what the
named programs need is compiled, and only when something has changed.
"""
import fcntl
import os
import subprocess

from tests.harness.paths import ROOT


def sanitized(sanitizers, *names):
    """{name: path} of the programs NAMES of the directory tests in the build."""
    out = ROOT / ('build-' + sanitizers.replace(',', '-'))
    paths = {name: out / 'tests' / name for name in names}
    os.makedirs(out, exist_ok=True)
    with open(out / '.lock', 'w') as lock:
        # Workers may ask for the same build at the same time.
        fcntl.flock(lock, fcntl.LOCK_EX)
        r = subprocess.run(['scons', '-Q', '-s', f'-j{os.cpu_count()}', f'sanitize={sanitizers}',
                            *(p.relative_to(ROOT) for p in paths.values())],
                           cwd=ROOT, capture_output=True, text=True)
    assert r.returncode == 0, r.stdout + r.stderr
    return paths
