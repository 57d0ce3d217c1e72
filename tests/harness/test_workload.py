"""The writer that other tests trust finds what is wrong."""
import json

import pytest

from tests.harness.paths import VERIFIER
from tests.harness.workload import Workload


@pytest.mark.parametrize('direct', [False, True], ids=['buffered', 'direct'])
def test_an_honest_file_passes(host, direct):
    # /dev/shm has no O_DIRECT; the host's own directory is on a disk, as a rule.
    w = Workload(host, host.path / 'file', size='4M', jobs=3, direct=direct).start()
    report = w.finish()
    assert report['reads'] > 0 and report['writes'] > 0


def checked(host, path, log):
    r = host.run([VERIFIER, '--check', f'--log={log}', path], check=False)
    return r.rc, r.out


@pytest.fixture
def written(host):
    path, log = host.path / 'file', host.path / 'log'
    Workload(host, path, size='1M', log=log).start().finish()
    assert checked(host, path, log)[0] == 0
    return path, log


def test_a_flipped_bit_is_found(host, written):
    path, log = written
    data = bytearray(path.read_bytes())
    at = next(i for i in range(0, len(data), 4096) if data[i]) + 2000
    data[at] ^= 1
    path.write_bytes(data)
    rc, out = checked(host, path, log)
    assert rc == 1 and 'MISMATCH' in out and '"mismatches":1' in out


def test_a_lost_write_is_found(host, written):
    path, log = written
    data = bytearray(path.read_bytes())
    at = next(i for i in range(0, len(data), 4096) if data[i])
    data[at:at + 4096] = bytes(4096)
    path.write_bytes(data)
    rc, out = checked(host, path, log)
    assert rc == 1 and 'sequence 0' in out


def test_a_block_in_another_place_is_found(host, written):
    path, log = written
    data = bytearray(path.read_bytes())
    used = [i for i in range(0, len(data), 4096) if data[i]]
    a, b = used[0], used[-1]
    data[a:a + 4096], data[b:b + 4096] = data[b:b + 4096], data[a:a + 4096]
    path.write_bytes(data)
    assert checked(host, path, log)[0] == 1


def test_an_error_is_counted_and_named(host):
    # A limit on the size of files makes writes beyond it fail; the pipe has none.
    path = host.path / 'file'
    with open(path, 'wb') as f:
        f.truncate(1 << 20)
    out = host.sh(f'trap "" XFSZ; ulimit -f 512; {VERIFIER} --size=1M --seconds=1 {path} | cat').out
    final = json.loads(out.splitlines()[-1])
    assert final['errors'] > 0 and final['first_error'] == 'EFBIG'
