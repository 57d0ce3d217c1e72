"""SECURITY.md says what the source says."""
import re

from tests.harness.paths import ROOT

TEXT = (ROOT / 'SECURITY.md').read_text()


def defined(file, name):
    text = (ROOT / file).read_text()
    return re.search(rf'#define\s+{name}\s+\(?(.+?)\)?(?:\s*/\*|$)', text, re.M).group(1)


def test_nbdd_s_capabilities_are_those_of_the_table():
    source = (ROOT / 'daemon/power.c').read_text()
    needed = set(re.findall(r'CAP\(CAP_(\w+)\)', source))
    row = next(line for line in TEXT.splitlines() if line.startswith('| `nbdd` |'))
    assert set(re.split(', ', row.split('|')[3].strip())) == needed


def test_every_role_has_its_row():
    names = re.findall(r'(?:\.what = |snprintf\((?:g->)?what, sizeof\((?:g->)?what\), )"(\w+)',
                       ''.join(p.read_text() for p in (ROOT / 'daemon').glob('*.c')))
    rows = ''.join(line.split('|')[1] for line in TEXT.splitlines() if line.startswith('| `'))
    assert len(names) > 4
    for name in names:
        assert f'`{name}`' in rows, name
    verbs = re.findall(r'start\(d, \S+, "(\w+)"', (ROOT / 'daemon/errand.c').read_text())
    assert verbs and all(f'`{v}`' in rows for v in verbs)


def test_limits_are_those_of_the_source():
    for file, name, value, text in (
            ('daemon/child.h', 'CHILD_MESSAGE_MAX', '24 * 1024', 'an answer of 24 KiB'),
            ('daemon/job.h', 'JOB_MAX', '4u << 20', 'a job of 4 MiB'),
            ('daemon/spawner.h', 'SPAWNER_CHILDREN_MAX', '256', '256 of a spawner at a time'),
            ('daemon/spawner.h', 'SPAWNER_CLIENTS_MAX', '8', '8 clients of its service'),
            ('daemon/proto/varlink.h', 'VARLINK_CLIENTS_MAX', '256', '256 clients'),
            ('daemon/proto/varlink.h', 'VARLINK_CLIENTS_ROOT', '32', "32 of them root's"),
            ('daemon/proto/varlink.h', 'VARLINK_CALL_MAX', '1u << 20', 'a call 1 MiB'),
            ('daemon/disposal.h', 'DISPOSAL_SOCKETS_MAX', '512', '512 sockets, those of'),
            ('daemon/disposal.h', 'DISPOSAL_CHILDREN_MAX', '16', '16 processes for it'),
            ('daemon/manager.h', 'MANAGER_DEVICES_MAX', '1024', '1,024 devices'),
            ('daemon/connector.c', 'PROCESSES_MAX', '32', '32 connectors'),
            ('daemon/connector_child.h', 'CONNECTOR_TASKS_MAX', '32', 'at most 32 connections'),
            ('daemon/resolver.h', 'RESOLVERS_MAX', '32', '32 resolvers'),
            ('lib/session/limits.h', 'EXPORTS_MAX', '10000', '10,000 exports'),
            ('lib/session/limits.h', 'OPTION_REPLIES_MAX', '20000', '20,000 replies'),
            ('daemon/news.h', 'NEWS_KEPT', '256', 'the last 256 for all'),
            ('daemon/programs.h', 'PROGRAMS_AT_ONCE', '4', '4 programs at a time'),
            ('daemon/programs.h', 'PROGRAMS_WAITING', '64', '64 waiting'),
            ('daemon/programs.h', 'PROGRAM_CLIENTS_MAX', '8', '8 clients of `programs`'),
            ('conf/conf.h', 'CONF_FILE_MAX', '1u << 20', 'files of 1 MiB')):
        assert defined(file, name) == value, name
        assert text in TEXT.replace('\n', ' '), text
