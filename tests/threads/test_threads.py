"""One handle from many threads: right data, every callback, no race."""
import subprocess

import pytest

from tests.harness.paths import BUILD, ROOT

HERE = ROOT / 'tests' / 'threads'
COMPILE = ['gcc', '-std=gnu17', '-g', '-O1', '-Wall', '-Wextra', f'-I{ROOT}',
           f'-I{BUILD}/include']


def run_against_a_server(program, **env):
    r = subprocess.run(
        ['nbdkit', '-U', '-', 'memory', '64M', '--run', f'timeout 100 {program} "$uri"'],
        capture_output=True, text=True, timeout=120, env={'PATH': '/usr/bin:/usr/sbin', **env})
    assert r.returncode == 0, r.stdout + r.stderr
    assert 'WARNING: ThreadSanitizer' not in r.stderr, r.stderr


def test_one_handle_serves_many_threads(tmp_path):
    program = tmp_path / 'threads'
    subprocess.run([*COMPILE, '-o', program, HERE / 'threads.c', f'-L{BUILD}', '-lnbd',
                    '-pthread'], check=True)
    run_against_a_server(program, LD_LIBRARY_PATH=str(BUILD))


@pytest.mark.slow
def test_one_handle_serves_many_threads_without_a_race(tmp_path):
    """The same under the thread sanitizer, the library compiled with it."""
    program = tmp_path / 'threads'
    sources = [s for folder in ('api', 'session', 'wire', 'io', 'util')
               for s in sorted((ROOT / 'lib' / folder).glob('*.c'))]
    xml = subprocess.run(['pkg-config', '--cflags', 'libxml-2.0'], capture_output=True,
                         text=True, check=True).stdout.split()
    subprocess.run([*COMPILE, '-Wno-unused-parameter', '-Wno-missing-field-initializers',
                    '-fsanitize=thread', '-D_GNU_SOURCE', f'-I{BUILD}/obj', *xml, '-o',
                    program, HERE / 'threads.c', *sources,
                    BUILD / 'obj/lib/generated/calls.c', '-pthread'], check=True)
    run_against_a_server(program, TSAN_OPTIONS='halt_on_error=0')
