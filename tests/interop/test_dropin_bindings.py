"""The distribution's bindings, unmodified, on this library: Python, nbdsh, OCaml."""
import pathlib
import re
import shutil

import pytest

from tests.harness.proc import Host
from tests.harness.servers import Nbdkit
from tests.interop.dropin import OURS, run

HERE = pathlib.Path(__file__).parent
CHECKS = re.findall(r'^@check\ndef (\w+)', (HERE / 'bindings.py').read_text(), re.M)


@pytest.fixture(scope='module')
def server():
    with Host() as host, Nbdkit(host, ['memory', '8M']) as s:
        yield s


@pytest.mark.parametrize('name', CHECKS)
def test_python(server, name):
    run(['/usr/bin/python3', HERE / 'bindings.py', name, server.uri, server.socket])


def test_nbdsh(server):
    r = run(['nbdsh', '-u', server.uri, '-c', 'data = bytes(range(256)) * 16',
             '-c', 'h.pwrite(data, 4096)', '-c', 'assert h.pread(4096, 4096) == data',
             '-c', 'print(h.get_size())'])
    assert r.stdout == f'{8 << 20}\n'


def test_nbdsh_with_contexts_and_options(server):
    r = run(['nbdsh', '--base-allocation', '-u', server.uri, '-c',
             'h.block_status(512, 0, lambda name, *rest: print(name))'])
    assert r.stdout == 'base:allocation\n'
    r = run(['nbdsh', '--opt-mode', '-u', server.uri, '-c',
             'print(h.opt_list(lambda *a: 0))', '-c', 'h.opt_abort()'])
    assert r.stdout == '1\n'


def test_nbdsh_tells_of_errors(server):
    r = run(['nbdsh', '-u', server.uri, '-c', 'h.pread(512, 1 << 50)'], check=False)
    assert r.returncode == 1 and 'nbd_pread: request out of bounds' in r.stderr


def test_ocaml(server):
    if not shutil.which('ocaml', path=OURS['PATH']):
        pytest.skip('there is no ocaml')
    r = run(['ocaml', '-I', '+nbd', 'unix.cma', 'mlnbd.cma', HERE / 'bindings.ml', server.socket])
    assert r.stdout == 'all is well\n'
