"""nbdctl: its words, tables, JSON and exit statuses."""
import fcntl
import json
import os
import re
import stat
import struct
import subprocess
import sys
import termios

import pytest

from tests.control.manager import Manager, device, error
from tests.control.terminal import Terminal
from tests.harness.paths import NBDCTL
from tests.harness.wait import wait_until

OK, FAILED, USAGE, NO_DAEMON, NO_DEVICE, HELD, FORBIDDEN, UNSUPPORTED, PERMISSION = range(9)
KINDS = {FAILED: 'failed', USAGE: 'usage', NO_DAEMON: 'no-daemon', NO_DEVICE: 'no-device',
         FORBIDDEN: 'listing-forbidden', UNSUPPORTED: 'listing-unsupported'}
VERBS = ('attach', 'detach', 'status', 'list', 'info', 'map', 'reconnect', 'move', 'reload',
         'check', 'help')


def run(*args, directory=None, env=None, **how):
    """nbdctl ARGS: CompletedProcess with text."""
    front = [f'--runtime-dir={directory}'] if directory else []
    return subprocess.run([NBDCTL, *front, *map(str, args)], capture_output=True, text=True,
                          timeout=60, env={**os.environ, **(env or {})}, **how)


def complains(result, status, *words):
    """It failed with STATUS and one clear line on stderr, which has the WORDS."""
    assert result.returncode == status, result
    assert len(result.stderr.splitlines()) == 1, result.stderr
    assert result.stderr.startswith('nbdctl: ')
    for word in words:
        assert word in result.stderr
    return True


def explains(result, status, *words):
    """As complains, with --json: the same sentence is an object on stdout."""
    complains(result, status, *words)
    e = json.loads(result.stdout)['error']
    assert (e['status'], e['kind']) == (status, KINDS[status])
    assert result.stderr == f"nbdctl: {e['message']}\n"
    return True


@pytest.fixture
def manager(tmp_path):
    with Manager(tmp_path) as m:
        m.run = lambda *args, **how: run(*args, directory=tmp_path, **how)
        yield m


# ---- words ---------------------------------------------------------------------------------

def test_help_names_every_verb():
    out = run('--help').stdout
    assert all(re.search(rf'^  {v} +\S', out, re.M) for v in VERBS)
    assert run('help').stdout == out and run('-h').stdout == out


@pytest.mark.parametrize('verb', VERBS)
def test_every_verb_has_its_help_within_80_columns(verb):
    result = run(verb, '--help')
    assert result.returncode == OK and result.stdout.startswith(f'nbdctl {verb}')
    assert run('help', verb).stdout == result.stdout
    assert max(map(len, result.stdout.splitlines()[1:])) <= 80


def test_help_of_attach_has_every_key_with_its_default():
    out = run('attach', '--help').stdout
    for key in ('uri', 'tls', 'timeout', 'dead-timeout', 'size-change', 'block-size', 'swap'):
        assert re.search(rf'^  --{key}=', out, re.M)
    assert 'By default infinity.' in out


def test_version():
    assert re.fullmatch(r'nbdctl \d+\.\d+\n', run('--version').stdout)


@pytest.mark.parametrize('args', [
    [], ['frob'], ['--frob'], ['status', 'a', 'b'], ['status', '--frob'], ['status', '-x'],
    ['status', '--json=1'], ['status', '--json', '--watch'], ['attach'], ['detach'], ['list'],
    ['attach', 'a/b'], ['attach', 'nbd://h', '--timeout=5x'], ['attach', 'nbd://h', '--frob=1'],
    ['attach', 'nbd://h', '--timeout'], ['attach', 'nbd://h', '--name'],
    ['attach', 'nbd://h', '--device=/dev/sda'], ['attach', 'nbd://h', '--name=a/b'],
    ['attach', '/dev/nbd1', '--device=/dev/nbd2'], ['attach', 'a', '--name=b'],
    ['attach', 'nbd://h', '--uri=nbd://i'], ['attach', 'http://h/'], ['help', 'frob'],
    ['--runtime-dir'],
], ids=' '.join)
def test_wrong_usage_is_status_2_and_one_sentence(args):
    assert complains(run(*args), USAGE)


def test_a_misspelt_key_is_told_the_likely_one():
    assert complains(run('attach', 'nbd://h', '--timeot=5s'), USAGE, "'timeot'", "'timeout'")


def test_control_bytes_of_the_command_line_are_escaped():
    assert complains(run('frob\x1b[31m'), USAGE, r'\x1b[31m')


def test_a_full_disk_is_an_error():
    with open('/dev/full', 'w') as full:
        result = subprocess.run([NBDCTL, '--help'], stdout=full, stderr=subprocess.PIPE)
    assert result.returncode == FAILED and b'cannot write' in result.stderr


# ---- no daemon -----------------------------------------------------------------------------

def test_without_a_daemon_it_says_how_to_start_it(tmp_path):
    for args in (['status'], ['attach', 'a'], ['detach', 'a'], ['reconnect', 'a'],
                 ['status', '--watch']):
        assert complains(run(*args, directory=tmp_path), NO_DAEMON, 'nbdd is not running',
                         f'{tmp_path}/control', 'systemctl start nbdd')
    assert explains(run('status', '--json', directory=tmp_path), NO_DAEMON)


def test_a_socket_that_nobody_listens_on_is_no_daemon(tmp_path):
    with Manager(tmp_path):
        pass
    assert stat.S_ISSOCK(os.stat(tmp_path / 'control').st_mode)
    assert complains(run('status', directory=tmp_path), NO_DAEMON, 'nobody listens')


def test_a_daemon_that_goes_away_in_the_middle_is_told(manager):
    manager.answers['Status'] = lambda params: None
    assert explains(manager.run('status', '--json'), NO_DAEMON, 'closed the connection')


@pytest.mark.parametrize('garbage', [b'garbage\0', b'[]\0', b'{"parameters":1}\0',
                                     b'{"error":{}}\0', b'{"parameters":{"devices":7}}\0'])
def test_an_answer_that_makes_no_sense_is_an_error(manager, garbage):
    manager.answers['Status'] = garbage
    assert complains(manager.run('status'), FAILED, 'not understood')


def test_an_unknown_error_is_shown_by_its_name(manager):
    manager.answers['Status'] = {'error': 'org.example.Odd\x1b'}
    assert complains(manager.run('status'), FAILED, r'org.example.Odd\x1b')


# ---- attach, detach ------------------------------------------------------------------------

def attached(number=3, warnings=()):
    return {'parameters': {'device': f'/dev/nbd{number}', 'name': 'x', 'index': number,
                           'warnings': list(warnings)}}


def test_attach_prints_the_device_alone_and_warnings_apart(manager):
    manager.answers['Attach'] = attached(warnings=['only one connection\x1b[31m', 'slow'])
    result = manager.run('attach', 'nbd://h/x')
    assert (result.returncode, result.stdout) == (OK, '/dev/nbd3\n')
    assert result.stderr == ('nbdctl: warning: only one connection\\x1b[31m\n'
                             'nbdctl: warning: slow\n')


@pytest.mark.parametrize('args, sent', [
    (['nbd://h/x'], {'keys': {'uri': 'nbd://h/x'}}),
    (['root'], {'name': 'root'}),
    (['/dev/nbd4'], {'device': '/dev/nbd4'}),
    (['nbd4', '--name=a'], {'device': 'nbd4', 'name': 'a'}),
    (['--', 'root'], {'name': 'root'}),
    (['root', '--dead-timeout', '5s'], {'name': 'root', 'keys': {'dead-timeout': '5s'}}),
    (['nbd://h', '--read-only', '--name', 'a', '--swap=no'],
     {'name': 'a', 'keys': {'uri': 'nbd://h', 'read-only': 'yes', 'swap': 'no'}}),
    (['nbd://h', '--device', '/dev/nbd7', '--bs=1k'],
     {'device': '/dev/nbd7', 'keys': {'uri': 'nbd://h', 'block-size': '1k'}}),
    (['nbds://h', '--tls'], {'keys': {'uri': 'nbds://h', 'tls': 'require'}}),
])
def test_attach_sends_what_was_asked_for(manager, args, sent):
    manager.answers['Attach'] = attached()
    assert manager.run('attach', *args).returncode == OK
    assert manager.calls == [('Attach', sent)]


@pytest.mark.parametrize('answer, status, words', [
    (error('ConnectFailed', message='nbd://h: Connection refused'), FAILED, 'Connection refused'),
    (error('InvalidKey', key='timeout', message='timeout: no'), USAGE, 'timeout: no'),
    (error('NoSuchDevice', device='root'), NO_DEVICE, '`root`'),
    (error('Busy', message='nbd3 is taken'), FAILED, 'nbd3 is taken'),
    (error('Failed', message='odd\n'), FAILED, r'odd\x0a'),
    ({'error': 'org.varlink.service.PermissionDenied'}, PERMISSION, 'only root'),
    ({'error': 'org.varlink.service.MethodNotFound',
      'parameters': {'method': 'io.nbdd.Manager.Attach'}}, FAILED, 'another version'),
])
def test_what_the_daemon_refuses_has_its_status(manager, answer, status, words):
    manager.answers['Attach'] = answer
    assert complains(manager.run('attach', 'root'), status, words)


def test_attach_shows_progress_on_a_terminal_when_it_takes_longer(manager, tmp_path):
    waiting = []
    manager.answers['Attach'] = lambda params: (wait_until(lambda: waiting, 20), attached())[1]
    with Terminal([NBDCTL, f'--runtime-dir={tmp_path}', 'attach', 'nbd://h/x']) as t:
        wait_until(lambda: 'attaching nbd://h/x' in t.output)
        waiting.append(True)
        assert t.wait() == OK
        # The line of progress is erased before the result.
        assert t.output.endswith('\r\x1b[K/dev/nbd3\r\n')


def test_attach_that_is_quick_shows_no_progress(manager, tmp_path):
    manager.answers['Attach'] = attached()
    with Terminal([NBDCTL, f'--runtime-dir={tmp_path}', 'attach', 'nbd://h/x']) as t:
        assert t.wait() == OK
        assert t.output == '/dev/nbd3\r\n'


def test_detach_and_reconnect_send_the_device(manager):
    manager.answers.update(Detach={'parameters': {}}, Reconnect={})
    assert manager.run('detach', 'root') .returncode == OK
    assert manager.run('detach', 'nbd0', '--force').returncode == OK
    assert manager.run('reconnect', '/dev/nbd0').returncode == OK
    assert manager.calls == [('Detach', {'device': 'root'}),
                             ('Detach', {'device': 'nbd0', 'force': True}),
                             ('Reconnect', {'device': '/dev/nbd0'})]


def test_move_sends_keys_and_says_what_came_of_it(manager):
    manager.answers['Move'] = {'parameters': {
        'device': '/dev/nbd0', 'name': 'root', 'from': 'nbd://a/x', 'to': 'nbd://b/x',
        'peer': '192.0.2.2:10809', 'compared': 32, 'pause_usec': 34000,
        'warnings': ['slow \x1b[31m']}}
    done = manager.run('move', 'root', 'nbd://b/x', '--keepalive=3s')
    assert (done.returncode, done.stdout) == (OK, '/dev/nbd0: moved to nbd://b/x (192.0.2.2:10809)'
                                              ': 32 blocks compared, I/O waited 34ms\n')
    assert 'slow' in done.stderr and '\x1b' not in done.stderr
    assert json.loads(manager.run('move', 'root', '--force', '--json').stdout)['compared'] == 32
    assert manager.calls == [
        ('Move', {'device': 'root', 'keys': {'keepalive': '3s', 'uri': 'nbd://b/x'}}),
        ('Move', {'device': 'root', 'keys': {}, 'force': True})]
    assert manager.run('move', 'root', 'nbd://b/x', '--uri=nbd://c/x').returncode == USAGE
    assert manager.run('move').returncode == USAGE
    manager.answers['Move'] = error('NotTheSame', message='the server has other data')
    done = manager.run('move', 'root', 'nbd://b/x')
    assert done.returncode == FAILED and 'stays where it is: the server has' in done.stderr


def test_detach_says_who_holds_the_device_and_what_to_do(manager):
    manager.answers['Detach'] = error('DeviceHeld', device='/dev/nbd0', holders=[
        {'kind': 'mount', 'device': 'nbd0p1', 'text': '/mnt', 'pid': 0},
        {'kind': 'swap', 'device': 'nbd0', 'text': '/dev/nbd0', 'pid': 0},
        {'kind': 'device', 'device': 'nbd0', 'text': 'dm-0', 'pid': 0},
        {'kind': 'process', 'device': 'nbd0', 'text': 'fio\x1b', 'pid': 123}])
    result = manager.run('detach', 'nbd0')
    assert result.returncode == HELD and result.stdout == ''
    for line in ('nbdctl: /dev/nbd0 is in use', 'nbd0p1 is mounted on /mnt: umount /mnt',
                 'nbd0 is used as swap space: swapoff /dev/nbd0', 'the device dm-0',
                 r'opened by fio\x1b (pid 123)', '--force'):
        assert line in result.stderr


def test_detach_looks_itself_for_who_holds_the_device_and_says_when_it_sees_nobody(manager):
    manager.answers['Detach'] = error('DeviceHeld', device='/dev/nbd1048575')   # nobody has that
    result = manager.run('detach', 'root')
    assert result.returncode == HELD and result.stdout == ''
    for line in ('nbdctl: /dev/nbd1048575 is in use', 'by whom is not to be seen', '--force'):
        assert line in result.stderr


def test_the_help_of_detach_says_what_force_risks():
    assert 'lose data' in re.sub(r'\s+', ' ', run('detach', '--help').stdout)


# ---- status --------------------------------------------------------------------------------

AWAY = {'attempts': 4, 'next_usec': 2100000, 'last_error': '192.0.2.1:10809: Connection refused'}
LONG = 'nbds://a.very.long.server.name.example.org:12345/some/very/long/export/name'


def columns(out):
    """The rows of the table by the heads, cut where the heads stand."""
    lines = [line for line in out.splitlines() if not line.startswith('    ')]
    starts = [m.start() for m in re.finditer(r'\S+( \S+)*', lines[0])]
    return lines, starts


def test_status_is_a_table_with_aligned_columns(manager):
    manager.status(device(), device(name='größer', device='/dev/nbd12', size=3 << 20))
    lines, starts = columns(manager.run('status').stdout)
    assert lines[0].split() == ['DEVICE', 'NAME', 'STATE', 'SIZE', 'OUTAGES', 'SERVER']
    assert lines[1].split() == ['/dev/nbd0', 'root', 'connected', '10', 'GiB', '2',
                                'nbd://server.example/root']
    for line in lines:
        for start in (starts[1], starts[2], starts[5]):         # to the left
            assert line[start] != ' ' and line[start - 2:start] == '  '


def test_status_says_below_a_device_what_is_wrong(manager):
    manager.status(device(), device(name='b', state='reconnecting', retry=AWAY),
                   device(name='c', state='refused', warnings=['offers 10 GiB, expected 20 GiB']),
                   device(name='d', state='failing', retry=AWAY), device(name='e', warnings=['w']))
    notes = [line.strip() for line in manager.run('status').stdout.splitlines()
             if line.startswith('    ')]
    assert notes == [
        'the server is away and I/O waits: 192.0.2.1:10809: Connection refused '
        '(attempt 4, next in 2.1s)',
        'not resumed, and I/O waits: offers 10 GiB, expected 20 GiB',
        'dead-timeout has passed and I/O fails: 192.0.2.1:10809: Connection refused '
        '(attempt 4, next in 2.1s)', 'w']


def test_status_of_nothing_says_so(manager):
    manager.status()
    assert manager.run('status').stdout == 'No devices are attached.\n'
    assert json.loads(manager.run('status', '--json').stdout) == []


def test_status_json_is_an_array_of_what_the_daemon_said(manager):
    devices = [device(), device(name='b\x1b', state='reconnecting', retry=AWAY)]
    manager.status(*devices)
    assert json.loads(manager.run('status', '--json').stdout) == devices
    manager.status(devices[0])
    assert json.loads(manager.run('status', 'root', '--json').stdout) == devices[:1]
    assert manager.calls[-1] == ('Status', {'device': 'root'})


def test_status_of_one_device_tells_everything(manager):
    tls = {'version': 'TLS1.3', 'cipher': 'AES-256-GCM', 'in_kernel': True,
           'certificate': {'names': 'disk.example', 'expires': 1767225600000000,
                           'days_left': 41}}
    manager.status(device(state='degraded', tls=tls, read_only=True))
    out = manager.run('status', 'root').stdout
    for text in ('/dev/nbd0 root', 'State: degraded', 'URI: nbd://server.example/root',
                 'Server: 192.0.2.1:10809', 'Size: 10 GiB (10737418240 bytes)',
                 'Block size: 4096 bytes', 'Access: read-only', 'Flags: flush fua trim',
                 'TLS: TLS1.3, AES-256-GCM, encrypted by the kernel', 'round trip 250us',
                 'Certificate: disk.example, until 2026-01-01, 41 days left',
                 '3 retransmits', 'Outages: 2, 1min 3s in all', 'for 8.2s',
                 'Connection reset by peer', '100 reads, 20 writes, 117.7 MiB; 3 in flight'):
        assert text in out, text
    assert len({line.index(': ') for line in out.splitlines()[1:]
                if not line.startswith('    ' * 3)}) == 1, 'labels are aligned'


def test_status_of_an_unknown_device_is_status_4(manager):
    manager.answers['Status'] = error('NoSuchDevice', device='nbd9')
    assert explains(manager.run('status', 'nbd9', '--json'), NO_DEVICE, 'nbd9')


def test_control_bytes_from_the_daemon_never_reach_the_terminal(manager):
    evil = 'a\x1b[31m\x07\r\n\u202e'
    d = device(name=evil, uri=evil, peer=evil, flags=[evil], state=evil, warnings=[evil],
               tls={'version': evil, 'cipher': evil, 'in_kernel': False,
                    'why_not_in_kernel': evil, 'certificate': {'names': evil, 'expires': 1}},
               outages={'count': 1, 'total_usec': 1, 'last': {'reason': evil}})
    manager.status(d)
    for args in (['status'], ['status', 'x'], ['status', '--json']):
        out = manager.run(*args).stdout
        if '--json' in args:
            assert json.loads(out)[0]['name'] == evil
        else:
            assert '\u202e' not in out and r'\xe2\x80\xae' in out
        assert not set(out) & set('\x1b\x07\r'), repr(out)


@pytest.mark.parametrize('d', [{}, {'name': 1, 'state': None, 'size': 'x', 'io': [], 'tls': 7},
                               {'size': -5, 'connections': [1, {}], 'outages': {'last': {}}},
                               {'size': 2**64 - 1, 'outages': {'count': 2**63, 'last': 4}}])
def test_devices_that_make_no_sense_do_no_harm(manager, d):
    manager.status(d)
    for args in (['status'], ['status', 'x'], ['status', '--json']):
        assert manager.run(*args).returncode == OK


def many(n):
    states = ('connected', 'reconnecting', 'refused')
    return [device(name=f'a-device-with-a-long-name-{i}', device=f'/dev/nbd{i}', index=i, uri=LONG,
                   state=states[i % 3], retry=AWAY) for i in range(n)]


@pytest.mark.parametrize('width', [40, 80, 119, 120, 200])
def test_the_table_fits_the_terminal(manager, tmp_path, width):
    manager.status(*many(6))
    with Terminal([NBDCTL, f'--runtime-dir={tmp_path}', 'status'], columns=width) as t:
        assert t.wait() == OK
        lines = t.plain.splitlines()
        # Names and servers are cut to 8 and 12 columns and no further.
        assert max(map(len, lines)) <= max(width, 67)
        assert ('IN FLIGHT' in lines[0]) == (width >= 120)
        assert (LONG in t.plain) == (width >= 200)


def test_colour_is_for_terminals_and_adds_nothing_to_the_words(manager, tmp_path):
    manager.status(*many(3))
    plain = manager.run('status').stdout
    assert '\x1b' not in plain
    command = [NBDCTL, f'--runtime-dir={tmp_path}', 'status']
    with Terminal(command, columns=300) as t:
        t.wait()
        assert '\x1b[32mconnected' in t.output and '\x1b[31mrefused' in t.output
        assert [line.split() for line in t.plain.splitlines()][1][:3] == plain.split('\n')[1].split()[:3]
    for env in ({'NO_COLOR': '1'}, {'TERM': 'dumb'}):
        with Terminal(command, env=env) as t:
            t.wait()
            assert '\x1b' not in t.output


def replies(*lists):
    return [{'continues': True, 'parameters': {'devices': list(d)}} for d in lists]


def test_watch_without_a_terminal_appends_a_line_for_each_change(manager):
    manager.answers['Status'] = replies(
        [device()], [device(size=5)], [device(state='reconnecting', retry=AWAY)],
        [device(), device(name='b', device='/dev/nbd1')]) + [{'parameters': {'devices': []}}]
    result = manager.run('status', '--watch')
    assert result.returncode == OK
    assert [line.split(' ', 1)[1] for line in result.stdout.splitlines()] == [
        '/dev/nbd0 root connected',
        '/dev/nbd0 root reconnecting: the server is away and I/O waits: 192.0.2.1:10809: '
        'Connection refused (attempt 4, next in 2.1s)',
        '/dev/nbd0 root connected', '/dev/nbd1 b connected',
        '/dev/nbd0 root detached', '/dev/nbd1 b detached']
    assert all(re.match(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[+-]\d{4} ', line)
               for line in result.stdout.splitlines())


def held_open(manager, *lists):
    """Status sends these and then nothing more until the test is over."""
    def answer(params):
        yield from replies(*lists)
        wait_until(lambda: manager.over, 30)
    manager.over = False
    manager.answers['Status'] = lambda params: answer(params)
    return manager


@pytest.mark.parametrize('key, status', [('\x03', OK)])
def test_watch_redraws_a_screen_and_ctrl_c_restores_the_terminal(manager, tmp_path, key, status):
    held_open(manager, many(2), many(60))
    with Terminal([NBDCTL, f'--runtime-dir={tmp_path}', 'status', '--watch'],
                  columns=80, lines=20) as t:
        wait_until(lambda: '60 devices, ' in t.plain and re.search(r'\d+ more', t.plain))
        wait_until(lambda: t.output.count('\x1b[H') >= 3, what='a redraw each second')
        assert t.output.startswith('\x1b[?1049h\x1b[?25l')
        # No more lines than there are, so that nothing scrolls.
        assert max(screen.count('\n') for screen in t.output.split('\x1b[H')) < 20
        t.type(key)
        assert t.wait() == status
        assert t.output.endswith('\x1b[?25h\x1b[?1049l')
    manager.over = True


def test_watch_ends_with_q_as_it_began_and_follows_the_size_of_the_window(manager, tmp_path):
    held_open(manager, many(3))
    with Terminal([NBDCTL, f'--runtime-dir={tmp_path}', 'status', '--watch'], columns=80,
                  env={'NO_COLOR': '1'}) as t:
        # What it does to the terminal it does before it draws.
        wait_until(lambda: 'LATENCY' in t.plain)
        assert not termios.tcgetattr(t.master)[3] & (termios.ICANON | termios.ECHO)

        def widest():
            return max(map(len, re.split('[\r\n]+', t.plain.rsplit('DEVICE', 1)[1])))
        assert widest() <= 80 and '\x1b[3' not in t.output
        seen = t.output.count('\x1b[H')
        fcntl.ioctl(t.master, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 150, 0, 0))
        wait_until(lambda: t.output.count('\x1b[H') > seen and widest() > 80)
        t.type('xq')
        assert t.wait() == OK
        assert t.output.endswith('\x1b[?25h\x1b[?1049l')
        assert termios.tcgetattr(t.master)[3] & termios.ICANON
        assert termios.tcgetattr(t.master)[3] & termios.ECHO
    manager.over = True


def test_watch_on_a_terminal_that_cannot_draw_prints_lines(manager, tmp_path):
    held_open(manager, [device()])
    with Terminal([NBDCTL, f'--runtime-dir={tmp_path}', 'status', '--watch'],
                  env={'TERM': 'dumb'}) as t:
        wait_until(lambda: '/dev/nbd0 root connected' in t.output)
        assert '\x1b' not in t.output
        t.type('\x03')
        assert t.wait() == OK
    manager.over = True


def test_watch_counts_down_to_the_next_attempt(manager, tmp_path):
    held_open(manager, [device(state='reconnecting', retry={**AWAY, 'next_usec': 90000000})])
    with Terminal([NBDCTL, f'--runtime-dir={tmp_path}', 'status', '--watch'], columns=200) as t:
        wait_until(lambda: 'next in 1min 30s' in t.output or 'next in 1min 29s' in t.output)
        wait_until(lambda: re.search('next in 1min 2[0-8]s', t.output))
        t.type('\x03')
        t.wait()
    manager.over = True


def test_watch_says_when_the_daemon_stops(tmp_path):
    result = subprocess.run(
        [sys.executable, '-c', CLOSING, str(tmp_path / 'closing'), str(NBDCTL)],
        capture_output=True, text=True, timeout=30)
    assert result.returncode == NO_DAEMON, result
    assert 'closed the connection' in result.stderr


CLOSING = '''
import json, os, socket, subprocess, sys
os.mkdir(sys.argv[1])
s = socket.socket(socket.AF_UNIX); s.bind(sys.argv[1] + '/control'); s.listen()
p = subprocess.Popen([sys.argv[2], '--runtime-dir=' + sys.argv[1], 'status', '--watch'])
c, _ = s.accept(); c.recv(4096)
c.sendall(json.dumps({'continues': True, 'parameters': {'devices': []}}).encode() + b'\\0')
s.close(); c.close()
sys.exit(p.wait())
'''


# ---- check ---------------------------------------------------------------------------------

def test_check_of_good_files_counts_devices(tmp_path):
    conf, tab = tmp_path / 'nbdd.conf', tmp_path / 'nbdtab'
    conf.write_text('[root]\nuri = nbd://server/root\n[data]\nuri = nbd://server/data\n')
    tab.write_text('# a comment\nnbd0 server export\n')
    result = run('check', conf)
    assert (result.returncode, result.stdout) == (OK, '2 devices, 0 errors, 0 warnings\n')
    assert run('check', tab).stdout == '1 device, 0 errors, 0 warnings\n'


def test_check_names_file_and_line_and_what_is_allowed(tmp_path):
    conf = tmp_path / 'nbdd.conf'
    conf.write_text('[root]\nuri = nbd://server/root\ntimeout = 5x\n[ok]\nuri = nbd://h/\n')
    result = run('check', conf)
    assert result.returncode == FAILED
    assert result.stderr.startswith(f'{conf}:3: error: ') and 'allowed' in result.stderr
    assert result.stdout == '1 device, 1 error, 0 warnings\n'


def test_check_of_a_missing_file_fails(tmp_path):
    result = run('check', tmp_path / 'none')
    assert result.returncode == FAILED and 'no such file' in result.stderr
