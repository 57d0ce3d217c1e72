"""nbdctl events, and the catalog of the journal; test_guest.py has events of a device."""
import json
import re
import subprocess

import pytest

from tests.control.idl import Interface
from tests.control.test_nbdctl import (NO_DAEMON, OK, complains, manager,
                                       run)                     # noqa: F401
from tests.control.test_idl import TEXT
from tests.harness.paths import BUILD, ROOT

CATALOG = ROOT / 'contrib/systemd/nbdd.catalog'
EVENT = {'event': 'outage', 'device': '/dev/nbd0', 'name': 'a', 'time': 1700000000000000,
         'message': 'connection lost: \x1b[31mreset'}
END = {'parameters': {'event': None, 'lost': 0}}


def replies(*events):
    """What the daemon sends: that it begins, EVENTS, and an end that nbdctl believes."""
    more = [{'parameters': {'event': e, 'lost': lost}, 'continues': True}
            for e, lost in [(None, 0), *events]]
    return [*more, END]


def kinds():
    """{event: (id, priority)} of the source."""
    source = (ROOT / 'daemon/news.c').read_text()
    return {n: (i, p) for n, i, p in
            re.findall(r'\{ "(\w+)", "([0-9a-f]{32})",\s+LOG_(\w+) \}', source)}


def test_a_line_for_each_event(manager):                        # noqa: F811
    manager.answers['Events'] = replies((EVENT, 0), (None, 7), ({**EVENT, 'device': ''}, 1))
    r = manager.run('events', env={'TZ': 'UTC'})
    assert (r.returncode, r.stderr) == (OK, '')
    assert r.stdout.splitlines() == [
        '2023-11-14T22:13:20+0000 /dev/nbd0 a outage: connection lost: \\x1b[31mreset',
        '7 events were lost here, for they were not read in time',
        '1 events were lost here, for they were not read in time',
        '2023-11-14T22:13:20+0000 - a outage: connection lost: \\x1b[31mreset']
    assert manager.calls == [('Events', None)]


def test_an_object_for_each_event(manager):                     # noqa: F811
    manager.answers['Events'] = replies((EVENT, 0), (None, 7))
    r = manager.run('events', 'a', '--json')
    assert (r.returncode, r.stderr) == (OK, '')
    assert [json.loads(line) for line in r.stdout.splitlines()] == [
        {'event': EVENT, 'lost': 0}, {'event': None, 'lost': 7}]
    assert '\x1b' not in r.stdout
    assert manager.calls == [('Events', {'device': 'a'})]
    i = Interface(TEXT)
    assert i.check({'event': EVENT, 'lost': 0}, i.methods['Events'][1])


def test_a_daemon_that_is_replaced_is_followed_further(manager):        # noqa: F811
    answers = [replies((EVENT, 0))[:-1], replies((EVENT, 0))]

    def answer(params):
        # The first connection ends without an end, as that of a daemon that is replaced.
        return answers.pop(0) if answers else None
    manager.answers['Events'] = answer
    manager.hang_up_after = {'Events': 1}
    r = manager.run('events')
    assert (r.returncode, len(r.stdout.splitlines())) == (OK, 2)


@pytest.mark.parametrize('answer, status', [
    ({'error': 'org.varlink.service.MethodNotFound', 'parameters': {'method': 'Events'}}, 1),
    ({'error': 'io.nbdd.Manager.Busy', 'parameters': {'message': 'too many'}}, 1)])
def test_errors(manager, answer, status, tmp_path):             # noqa: F811
    manager.answers['Events'] = answer
    assert complains(manager.run('events'), status)
    assert complains(run('events', directory=tmp_path / 'no'), NO_DAEMON)


def test_every_event_is_in_the_manual_the_interface_and_the_catalog():
    page = (BUILD / 'man/man8/nbdd.8').read_text()
    events = page[page.index('.SH EVENTS'):page.index('.SH PROGRAMS')]
    comment = TEXT[:TEXT.index('type Event ')].rsplit('\n\n', 1)[1]
    catalog = CATALOG.read_text()
    found = kinds()
    assert len(found) >= 12 and len({i for i, _ in found.values()}) == len(found)
    assert set(re.findall(r'^\.B ([a-z]+)$', events, re.M)) >= set(found)
    for name, (number, _) in found.items():
        assert re.search(rf'\b{name}\b', comment), name
        assert f'-- {number}\n' in catalog, name
    assert len(re.findall('^-- ', catalog, re.M)) == len(found)


def test_the_catalog_is_one_for_journalctl(tmp_path):
    folder = tmp_path / 'usr/lib/systemd/catalog'
    folder.mkdir(parents=True)
    (tmp_path / 'var/lib/systemd/catalog').mkdir(parents=True)
    (folder / 'nbdd.catalog').write_text(CATALOG.read_text())

    def journalctl(*args):
        r = subprocess.run(['journalctl', f'--root={tmp_path}', *args], capture_output=True,
                           text=True)
        assert (r.returncode, r.stderr) == (0, ''), r
        return r.stdout
    journalctl('--update-catalog')
    out = journalctl('--list-catalog')
    for number, _ in kinds().values():
        assert re.search(rf'^{number} nbdd: @NBDD_', out, re.M) or number in out
    assert 'Subject: @NBDD_DEVICE@ has lost its server' in \
        journalctl('--dump-catalog', kinds()['outage'][0])
