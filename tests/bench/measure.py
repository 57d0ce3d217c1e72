"""Measure NBD libraries against each other, and against none, in interleaved runs.

Machines are noisy, so clients take turns within each round, client and server are kept on
a processor each, and only medians and their ratios count.
"""
import collections
import contextlib
import json
import os
import pathlib
import resource
import statistics
import subprocess
import tempfile

from tests.harness.paths import BUILD
from tests.harness.pki import make_keys

BENCH = BUILD / 'bench'
# DIRECTORY is where a program finds libnbd.so.0, None for the system's.
Client = collections.namedtuple('Client', 'program directory')
Sample = collections.namedtuple('Sample', 'client mode figures')

DISTRIBUTION = 'distribution'
OURS = 'nbdd'
RAW_LIMIT = 'raw limit'


def on_library(directory):
    """The load on the libnbd.so.0 in DIRECTORY."""
    return Client(BENCH / 'nbdbench', directory)


LIBRARIES = {DISTRIBUTION: on_library(None), OURS: on_library(BUILD)}
CLIENTS = {**LIBRARIES, RAW_LIMIT: Client(BENCH / 'rawlimit', None)}


def processors():
    """(the client's, the server's) processor; the same when there is but one."""
    available = sorted(os.sched_getaffinity(0))
    return available[0], available[-1]


def pinned(processor, argv):
    return ['taskset', '-c', str(processor), *map(str, argv)]


@contextlib.contextmanager
def serving(argv):
    """Run a server on its processor; gives the address that it tells."""
    server = subprocess.Popen(pinned(processors()[1], argv), stdout=subprocess.PIPE, text=True)
    try:
        yield server.stdout.readline().split()[1]
    finally:
        server.kill()
        server.wait()
        server.stdout.close()


# The same cipher for every library, whatever they prefer.
TLS = 'NORMAL:-VERS-ALL:+VERS-TLS1.3:-CIPHER-ALL:+AES-128-GCM:+ECDHE-PSK'


@contextlib.contextmanager
def nullserver(transport='unix', simple=False):
    """Run nullserver on `unix`, `tcp`, or `tls` over a Unix socket; gives its URI."""
    with tempfile.TemporaryDirectory(prefix='nbdd-bench.') as directory, \
            contextlib.ExitStack() as stack:
        where = 'tcp:0' if transport == 'tcp' else f'unix:{directory}/s'
        at = stack.enter_context(
            serving([BENCH / 'nullserver', where] + ['simple'] * simple))
        if transport == 'tls':
            keys, _ = make_keys(pathlib.Path(directory))
            at = stack.enter_context(serving(
                [BUILD / 'tests' / 'tlsfront', f'unix:{directory}/t', where, f'psk:{keys}',
                 TLS]))
            yield f'nbds+unix://alice@/?socket={at}&tls-psk-file={keys}'
        else:
            yield (f'nbd://127.0.0.1:{at}' if transport == 'tcp'
                   else f'nbd+unix:///?socket={at}')


def loaded_library(client):
    """The file that CLIENT gets as libnbd.so.0, None when it uses none."""
    out = subprocess.run(['ldd', str(client.program)], env=environment(client.directory),
                         text=True, capture_output=True, check=True).stdout
    found = [line for line in out.splitlines() if 'libnbd.so.0' in line]
    return os.path.realpath(found[0].split('=>')[1].split()[0]) if found else None


def environment(directory, count=False):
    env = {k: v for k, v in os.environ.items()
           if k not in ('LD_LIBRARY_PATH', 'LD_PRELOAD', 'LIBNBD_DEBUG')}
    if directory:
        env['LD_LIBRARY_PATH'] = str(directory)
    if count:
        env['LD_PRELOAD'] = str(BENCH / 'syscount.so')
    return env


def modes(client=CLIENTS[DISTRIBUTION]):
    return subprocess.run([client.program, '-l'], env=environment(client.directory), text=True,
                          capture_output=True, check=True).stdout.split()


def once(client, mode, uri, seconds, options=()):
    """One run of CLIENT: its figures as a dict."""
    out = subprocess.run(
        pinned(processors()[0], [client.program, '-s', seconds, *options, mode, uri]),
        env=environment(client.directory, count=True), text=True, capture_output=True,
        timeout=120)
    if out.returncode:
        raise RuntimeError(f'{client.program.name} {mode}: {out.stderr.strip()}')
    return json.loads(out.stdout)


def interleaved(uri, wanted, rounds, seconds, options=(), clients=None, progress=None):
    """ROUNDS rounds, in each every mode with every client that has it: a list of Samples."""
    clients = clients or LIBRARIES
    known = {name: modes(client) for name, client in clients.items()}
    turns = [(mode, name) for mode in wanted for name in clients if mode in known[name]]
    samples = []
    for n in range(rounds):
        for mode, name in turns:
            if progress:
                progress(f'round {n + 1}/{rounds} {mode} {name}')
            samples.append(Sample(name, mode,
                                  once(clients[name], mode, uri, seconds, options)))
    return samples


def copy_seconds(client, uri, request_size):
    """CPU seconds of nbdcopy from URI to nowhere, on CLIENT's library."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(pinned(processors()[0], ['nbdcopy', f'--request-size={request_size}',
                                            '--connections=1', '--no-extents', uri, 'null:']),
                   env=environment(client.directory), check=True, timeout=60)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def copy_ratio(uri, request_size, rounds):
    """How many times less CPU nbdcopy takes on our library: medians of turns."""
    seconds = {name: [] for name in LIBRARIES}
    for _ in range(rounds):
        for name, client in LIBRARIES.items():
            seconds[name].append(copy_seconds(client, uri, request_size))
    return statistics.median(seconds[DISTRIBUTION]) / statistics.median(seconds[OURS])


def median(samples, client, mode, figure):
    """None when CLIENT does not have MODE."""
    figures = [s.figures[figure] for s in samples if s.client == client and s.mode == mode]
    return statistics.median(figures) if figures else None


def ratio(samples, mode, figure='cpu_ns', client=OURS):
    """How many times less CLIENT takes than the distribution's library."""
    return (median(samples, DISTRIBUTION, mode, figure) /
            median(samples, client, mode, figure))
