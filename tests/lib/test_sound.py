"""The library in the eyes of the sanitizers and of valgrind, and what it costs in memory."""
import os
import re
import subprocess

import pytest

from tests.harness.builds import sanitized
from tests.harness.paths import BUILD
from tests.harness.pki import make_keys
from tests.harness.servers import Nbdkit, TlsFront

OURS = {**os.environ, 'LD_LIBRARY_PATH': str(BUILD)}


def run(argv, env=None):
    r = subprocess.run(argv, env=env, capture_output=True, text=True, errors='replace',
                       timeout=150)
    assert r.returncode == 0, (r.returncode, r.stdout, r.stderr)
    return r


@pytest.mark.slow
def test_threads_race_for_nothing(host):
    program = sanitized('thread', 'lib_threads')['lib_threads']
    with Nbdkit(host, ['memory', '64M']) as server:
        r = run([program, server.socket], {**os.environ, 'TSAN_OPTIONS': 'halt_on_error=0'})
    assert (r.stdout, r.stderr) == ('8 threads, 48 handles\n', '')


@pytest.fixture
def keys(tmp_path):
    return make_keys(tmp_path)[0]


@pytest.mark.slow
def test_threads_race_for_nothing_with_tls(host, keys):
    program = sanitized('thread', 'lib_threads')['lib_threads']
    with Nbdkit(host, ['memory', '64M'], options=['--tls=require', f'--tls-psk={keys}']) as s:
        # gnutls itself is not built for it; what it does is under the handle's lock.
        r = run([program, s.socket, keys], {**os.environ, 'TSAN_OPTIONS': 'halt_on_error=0'})
    assert (r.stdout, r.stderr) == ('8 threads, 48 handles\n', '')


EVENTS = ['7:ticket', '=30:keyupdate', '=60:keyupdate-both']


@pytest.mark.slow
@pytest.mark.parametrize('how', ['address,undefined', 'valgrind'])
def test_tls_is_sound(host, keys, how):
    """A server that keeps to the end, and one that sends tickets and changes keys."""
    if how == 'valgrind':
        argv = ['valgrind', '-q', '--error-exitcode=99', '--leak-check=full',
                '--errors-for-leak-kinds=definite,indirect,possible',
                BUILD / 'tests' / 'lib_tls']
    else:
        argv = [sanitized(how, 'lib_tls')['lib_tls']]
    options = ['--tls=on', f'--tls-psk={keys}']
    with Nbdkit(host, ['memory', '8M'], options=options) as server:
        assert run([*argv, server.socket, keys, '1']).stdout == 'encrypted\n'
    with Nbdkit(host, ['memory', '8M']) as server, \
            TlsFront(host, server, f'psk:{keys}', events=EVENTS) as front:
        assert run([*argv, front.socket, keys, '2']).stdout == 'encrypted\n'


def test_one_handle_serves_many_threads(host):
    with Nbdkit(host, ['memory', '64M']) as server:
        run([BUILD / 'tests' / 'lib_threads', server.socket])


@pytest.mark.slow
def test_thread_sanitizer_would_tell(tmp_path):
    source = tmp_path / 'x.c'
    source.write_text('''#include <pthread.h>
        int n; void *add(void *p) { for (int i = 0; i < 1000; i++) n++; return p; }
        int main(void) { pthread_t t; pthread_create(&t, 0, add, 0); add(0);
                         return pthread_join(t, 0); }''')
    subprocess.run(['gcc', '-fsanitize=thread', '-o', tmp_path / 'x', source], check=True)
    # Once, on a busy machine, it ended without a word; why is not known.
    assert any('data race' in subprocess.run([tmp_path / 'x'], capture_output=True,
                                             text=True).stderr for _ in range(10))


def both_servers(host):
    memory = ['memory', '8M']
    return Nbdkit(host, memory), Nbdkit(host, memory, tcp=True)


def test_every_group_of_calls_does_as_it_should(host):
    unix, tcp = both_servers(host)
    with unix, tcp:
        run([BUILD / 'tests' / 'lib_groups', unix.socket, str(tcp.port)], OURS)


@pytest.mark.slow
def test_address_sanitizer_finds_nothing(host):
    program = sanitized('address,undefined', 'lib_groups')['lib_groups']
    unix, tcp = both_servers(host)
    with unix, tcp:
        r = run([program, unix.socket, str(tcp.port)],
                {**os.environ, 'LD_LIBRARY_PATH': str(program.parents[1])})
    assert r.stdout == 'every group\n'


@pytest.mark.slow
def test_valgrind_finds_neither_errors_nor_leaks(host):
    unix, tcp = both_servers(host)
    with unix, tcp:
        r = run(['valgrind', '-q', '--error-exitcode=99', '--leak-check=full',
                 '--errors-for-leak-kinds=definite,indirect,possible', '--track-fds=yes',
                 '--show-leak-kinds=definite,indirect,possible', '--child-silent-after-fork=yes',
                 BUILD / 'tests' / 'lib_groups', unix.socket, str(tcp.port)], OURS)
    # Descriptors that the program itself has opened and left.
    opened = re.findall(r'Open .*\n(?!.*inherited from parent)', r.stderr)
    assert not opened, r.stderr
    assert r.stdout == 'every group\n'


@pytest.fixture
def cost(host):
    """{what: bytes a handle}."""
    with Nbdkit(host, ['memory', '64M']) as server:
        # What malloc keeps for its thread would count as in use.
        exact = {**OURS, 'GLIBC_TUNABLES': 'glibc.malloc.tcache_count=0'}
        out = run([BUILD / 'tests' / 'lib_memory', server.socket], exact).stdout
    return {name: int(number) for name, number in map(str.split, out.splitlines())}


def test_handles_are_small_and_give_back_what_they_used(cost):
    assert 0 < cost['created'] <= 9 << 10
    assert cost['created-resident'] <= 9 << 10
    # No buffer outlives its use, but a small one for requests and the pool of commands.
    assert cost['connected'] <= 9 << 10
    assert cost['used'] <= 16 << 10
    assert cost['idle-after-burst'] <= 128 << 10
    assert (cost['closed'], cost['closed-after-burst']) == (0, 0)
