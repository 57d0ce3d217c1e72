"""Measure NBD libraries against each other in interleaved runs.

Machines are noisy, so libraries take turns within each round, client and server are kept on
a processor each, and only medians and their ratios count.
"""
import collections
import contextlib
import json
import os
import statistics
import subprocess
import tempfile

from tests.harness.paths import BUILD

BENCH = BUILD / 'bench'
NBDBENCH = BENCH / 'nbdbench'
DISTRIBUTION = 'distribution'
OURS = 'nbdd'
LIBRARIES = {DISTRIBUTION: None, OURS: BUILD}   # name: directory, None for the system's

Sample = collections.namedtuple('Sample', 'library mode figures')


def processors():
    """(the client's, the server's) processor; the same when there is but one."""
    available = sorted(os.sched_getaffinity(0))
    return available[0], available[-1]


def pinned(processor, argv):
    return ['taskset', '-c', str(processor), *map(str, argv)]


@contextlib.contextmanager
def nullserver(transport='unix', simple=False):
    """Run nullserver on `unix` or `tcp`; gives its URI."""
    with tempfile.TemporaryDirectory(prefix='nbdd-bench.') as directory:
        where = f'unix:{directory}/s' if transport == 'unix' else 'tcp:0'
        server = subprocess.Popen(
            pinned(processors()[1], [BENCH / 'nullserver', where] + ['simple'] * simple),
            stdout=subprocess.PIPE, text=True)
        try:
            at = server.stdout.readline().split()[1]
            yield (f'nbd+unix:///?socket={at}' if transport == 'unix'
                   else f'nbd://127.0.0.1:{at}')
        finally:
            server.kill()
            server.wait()
            server.stdout.close()


def loaded_library(directory):
    """The file that nbdbench gets as libnbd.so.0 with DIRECTORY on its search path."""
    out = subprocess.run(['ldd', str(NBDBENCH)], env=environment(directory), text=True,
                         capture_output=True, check=True).stdout
    line = next(line for line in out.splitlines() if 'libnbd.so.0' in line)
    return os.path.realpath(line.split('=>')[1].split()[0])


def environment(directory, count=False):
    env = {k: v for k, v in os.environ.items()
           if k not in ('LD_LIBRARY_PATH', 'LD_PRELOAD', 'LIBNBD_DEBUG')}
    if directory:
        env['LD_LIBRARY_PATH'] = str(directory)
    if count:
        env['LD_PRELOAD'] = str(BENCH / 'syscount.so')
    return env


def modes():
    return subprocess.run([NBDBENCH, '-l'], text=True, capture_output=True,
                          check=True).stdout.split()


def once(directory, mode, uri, seconds, options=()):
    """One run of nbdbench: its figures as a dict."""
    out = subprocess.run(
        pinned(processors()[0], [NBDBENCH, '-s', seconds, *options, mode, uri]),
        env=environment(directory, count=True), text=True, capture_output=True, timeout=120)
    if out.returncode:
        raise RuntimeError(f'nbdbench {mode}: {out.stderr.strip()}')
    return json.loads(out.stdout)


def interleaved(uri, wanted, rounds, seconds, options=(), libraries=None, progress=None):
    """ROUNDS rounds, in each every mode with every library: a list of Samples."""
    samples = []
    for n in range(rounds):
        for mode in wanted:
            for library, directory in (libraries or LIBRARIES).items():
                if progress:
                    progress(f'round {n + 1}/{rounds} {mode} {library}')
                samples.append(Sample(library, mode,
                                      once(directory, mode, uri, seconds, options)))
    return samples


def median(samples, library, mode, figure):
    return statistics.median(s.figures[figure] for s in samples
                             if s.library == library and s.mode == mode)


def ratio(samples, mode, figure='cpu_ns', library=OURS):
    """How many times less LIBRARY takes than the distribution's."""
    return (median(samples, DISTRIBUTION, mode, figure) /
            median(samples, library, mode, figure))
