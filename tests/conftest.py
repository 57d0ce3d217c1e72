"""Fixtures for every test: machines, and what they said when a test fails."""
import contextlib

import pytest

from tests.harness import daemon as kept
from tests.harness import pace
from tests.harness.guest import Guest, GuestDied
from tests.harness.paths import BUILD
from tests.harness.proc import Host

# Files that take about a minute and more, the longest first.
LONG = ('boot/test_root.py', 'kernel/test_kills.py', 'faults/test_faults.py',
        'kernel/test_tls.py', 'fuzz/test_fuzz.py', 'kernel/test_crash.py',
        'kernel/test_tls_setups.py', 'front/test_table.py', 'fuzz/test_fuzz_lib.py',
        'kernel/test_relay.py', 'kernel/test_many.py', 'boot/test_packages.py',
        'control/test_servers.py', 'front/test_systemd.py', 'kernel/test_handover.py',
        'kernel/test_move_kills.py', 'kernel/test_lost_root.py', 'kernel/test_move.py',
        'lib/test_sound.py', 'kernel/test_limits.py', 'kernel/test_outages.py',
        'kernel/test_hostile.py', 'kernel/test_tls_secrets.py',
        'kernel/test_restarts.py', 'kernel/test_reload.py')
GUESTS_AT_ONCE = 3              # what a machine with two cores has places for (guest.Slot)


def pytest_configure():
    pace.watch_machine()


def pytest_collection_modifyitems(items):
    """Long files first, so that none is begun when the others have ended; and, of four, one
    without a guest, so that no worker waits for a place for its guest."""
    files = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    guests, others = [], []
    place = {name: n for n, name in enumerate(LONG)}
    for path in sorted(files, key=lambda p: place.get('/'.join(p.parts[-2:]), len(LONG))):
        marks = {mark.name for item in files[path] for mark in item.iter_markers()}
        (guests if marks & {'guest', 'boot'} else others).append(path)
    order = []
    while guests:
        order += guests[:GUESTS_AT_ONCE] + others[:1]
        del guests[:GUESTS_AT_ONCE], others[:1]
    items[:] = [item for path in order + others for item in files[path]]


def remember(request, machine):
    request.node.session.stash.setdefault(MACHINES, []).append(machine)


MACHINES, FAILED = pytest.StashKey(), pytest.StashKey()


@pytest.fixture
def host(request):
    """This machine, with a directory `host.path`; at the end nothing may be left behind."""
    with Host() as h:
        remember(request, h)
        yield h
    request.session.stash[MACHINES].remove(h)


@pytest.fixture(scope='module')
def boot(request):
    """boot(memory=…, nbds_max=…, modules=…) boots a Guest that lives until the end of the
    test module."""
    guests = []

    def boot_guest(**how):
        guests.append(Guest(**how))
        remember(request, guests[-1])
        return guests[-1]
    yield boot_guest
    for g in guests:
        request.session.stash[MACHINES].remove(g)
        g.close()


@pytest.fixture(scope='module')
def guest(boot):
    """A Guest for all tests of a module."""
    return boot()


@pytest.fixture(scope='session')
def build():
    """The directory with what was built: nbdd, nbdctl, libnbd.so.0, include/."""
    return BUILD


def guests(item):
    return [m for m in item.session.stash.get(MACHINES, []) if isinstance(m, Guest)]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_call(item):
    for g in guests(item):
        with contextlib.suppress(GuestDied):    # the test will say so
            kept.remember(g)
    yield


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_teardown(item):
    """A guest, and a daemon in it, may be there for further tests."""
    yield
    if FAILED in item.stash:
        for g in guests(item):
            g.run(['ip', 'link', 'set', 'lo', 'up'])
            kept.recover(g)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.when != 'call' or not report.failed:
        return
    item.stash[FAILED] = True
    for machine in item.session.stash.get(MACHINES, []):
        if isinstance(machine, Guest):
            report.sections.append(('guest console', machine.console()[-4000:]))
        for file in sorted(machine.path.glob('*.out'), key=lambda f: f.stat().st_mtime)[-12:]:
            text = file.read_text(errors='replace')
            if text:
                report.sections.append((f'output {file.name}', text[-4000:]))
