"""nbdctl map: the picture, its widths, JSON, SVG; many extents; odd servers."""
import json
import os
import re
import subprocess
import xml.etree.ElementTree as xml

import pytest

from tests.control.manager import device
from tests.control.test_nbdctl import (FAILED, NO_DAEMON, OK, USAGE, complains, explains, manager,
                                       run)                     # noqa: F401
from tests.control.terminal import Terminal
from tests.control.tmux import capture
from tests.harness import nbd_proto as p
from tests.harness import pieces
from tests.harness.nbd_proto import Cmd, Opt, Rep
from tests.harness.paths import NBDCTL
from tests.harness.script_server import Export, Script, ScriptServer
from tests.harness.scripts import SCRIPTS
from tests.harness.servers import Nbdkit, QemuNbd

MIB = 1 << 20
SIZE = 64 * MIB
GLYPHS = {'█': 'data', '▒': 'zero', '░': 'hole', '·': 'nothing', '▚': 'mixed', '▖': 'a little'}


def pattern(*runs):
    """extents(offset, length) of a context made of RUNS (length, flags), from 0 on."""
    def extents(offset, length):
        out, at = [], 0
        for n, flags in runs:
            start, end = max(at, offset), min(at + n, offset + length)
            if start < end:
                out.append((end - start, flags))
            at += n
        return out
    return extents


# The first half is data, then an eighth of each other kind, then little data in a hole.
HALF = pattern((SIZE // 2, 0), (SIZE // 8, 1), (SIZE // 8, 2), (SIZE // 8, 3),
               (4096, 0), (SIZE // 8 - 4096, 3))


@pytest.fixture
def serve():
    """serve(contexts, size, script fields...): the URI of a server with these contexts."""
    servers = []

    def start(contexts=None, size=SIZE, **fields):
        export = Export(size=size, contexts={'base:allocation': HALF} if contexts is None
                        else contexts)
        servers.append(ScriptServer(Script({'': export}, **fields)))
        return servers[-1].uri()
    yield start
    for server in servers:
        server.close()


def ok(*args):
    result = run(*args)
    assert (result.returncode, result.stderr) == (OK, ''), result
    return result.stdout


def picture(lines, context='base:allocation'):
    """The cells under a context's name."""
    at = lines.index(context) + 1
    return ''.join(line[11:] for line in lines[at:at + 8])


def kinds(lines):
    """{kind: (size, percent, extents)} of the lines below a picture."""
    found = (re.fullmatch(r'  \S (.+?) +([\d.]+ \w+) +([\d.]+) % +(\d+) extents?', s)
             for s in lines)
    return {m[1]: (m[2], m[3], m[4]) for m in found if m}


# ---- the picture ---------------------------------------------------------------------------

@pytest.mark.parametrize('columns', [80, 200])
def test_the_picture_fits_the_terminal(serve, columns):
    lines = capture([NBDCTL, 'map', serve()], columns)
    assert lines[0].endswith(': 64 MiB') and lines[2] == 'base:allocation'
    assert max(map(len, lines)) == columns
    cells = picture(lines)
    assert len(cells) == (columns - 11) * 8
    parts = [cells[i * len(cells) // 8:(i + 1) * len(cells) // 8] for i in range(8)]
    assert [set(part) for part in parts] == [
        {'█'}, {'█'}, {'█'}, {'█'}, {'░'}, {'▒'}, {'·'}, {'▖', '·'}]
    assert parts[7] == '▖' + '·' * (columns - 12)
    assert [line[:10].strip() for line in lines[3:11]] == [
        '0 B', '8 MiB', '16 MiB', '24 MiB', '32 MiB', '40 MiB', '48 MiB', '56 MiB']
    assert lines[-1] == '  ▖ a little of another kind'


def test_sizes_by_kind(serve):
    assert kinds(ok('map', serve()).splitlines()) == {
        'data': ('32.0 MiB', '50.0', '2'), 'hole': ('8 MiB', '12.5', '1'),
        'zero': ('8 MiB', '12.5', '1'), 'hole, reads as zero': ('15.9 MiB', '25.0', '2')}


def test_without_a_terminal_it_is_80_columns_of_plain_text(serve):
    out = ok('map', serve())
    assert max(map(len, out.splitlines())) == 80
    assert '\x1b' not in out


def test_parts_of_several_kinds_are_marked(serve):
    uri = serve({'base:allocation': pattern(*[(4096, 0), (4096, 3)] * (SIZE // 8192))})
    assert set(picture(ok('map', uri).splitlines())) == {'▚'}


def test_colours_are_for_terminals(serve):
    with Terminal([NBDCTL, 'map', serve()], columns=100) as t:
        assert t.wait() == OK
        assert '\x1b[32m█\x1b[m' in t.output
        assert len(picture(t.plain.replace('\r', '\n').replace('\n\n', '\n').splitlines())) > 0


@pytest.mark.parametrize('columns', [1, 20, 33, 1000])
def test_odd_widths(serve, columns):
    with Terminal([NBDCTL, 'map', serve()], columns=columns, env={'NO_COLOR': '1'}) as t:
        assert t.wait() == OK
        assert 'hole, reads as zero' in t.plain


@pytest.mark.parametrize('size', [0, 1, 512, 513, 65537, (1 << 63) - 1])
def test_odd_sizes(serve, size):
    uri = serve({'base:allocation': lambda offset, length: [(length, 3)]}, size=size,
                extended=True)
    out = ok('map', uri)
    assert 'base:allocation' in out if size else out.endswith(': 0 B\n')
    m = json.loads(ok('map', '--json', uri))
    assert [e['length'] for e in m['extents']] == ([size] if size else [])
    xml.fromstring(ok('map', '--svg', uri))


# ---- other forms ---------------------------------------------------------------------------

def test_json_has_every_extent(serve):
    other = pattern((SIZE // 4, 7), (SIZE // 4, 7), (SIZE // 2, 1 << 20))
    uri = serve({'base:allocation': HALF, 'x:other': other})
    m = json.loads(ok('map', '--json', uri))
    assert (m['uri'], m['size'], m['complete']) == (uri, SIZE, True)
    base = [e for e in m['extents'] if e['context'] == 'base:allocation']
    assert [(e['length'], e['flags'], e['kind']) for e in base] == [
        (SIZE // 2, 0, 'data'), (SIZE // 8, 1, 'hole'), (SIZE // 8, 2, 'zero'),
        (SIZE // 8, 3, 'hole, reads as zero'), (4096, 0, 'data'),
        (SIZE // 8 - 4096, 3, 'hole, reads as zero')]
    assert [e['offset'] for e in base] == [sum(e['length'] for e in base[:i])
                                           for i in range(len(base))]
    # Neighbours with the same flags are one.
    assert [(e['length'], e['kind']) for e in m['extents'] if e['context'] == 'x:other'] == [
        (SIZE // 2, 'flags 0x7'), (SIZE // 2, 'flags 0x100000')]
    for c in m['contexts']:
        mine = [e for e in m['extents'] if e['context'] == c['name']]
        assert c['kinds'] == [
            {'kind': k['kind'], 'flags': k['flags'],
             'bytes': sum(e['length'] for e in mine if e['flags'] == k['flags']),
             'extents': sum(e['flags'] == k['flags'] for e in mine)} for k in c['kinds']]
        assert sum(k['bytes'] for k in c['kinds']) == SIZE


def test_svg_is_a_drawing_to_scale(serve):
    root = xml.fromstring(ok('map', '--svg', serve()))
    ns = '{http://www.w3.org/2000/svg}'
    cells = [r for r in root.iter(f'{ns}rect') if r.get('height') == '8']
    data = [r for r in cells if r.get('fill') == '#2a7f3f']
    assert sum(int(r.get('width')) for r in cells) == 1024 * 32
    # Half of one more cell is data, too.
    assert sum(int(r.get('width')) for r in data) == 1024 * 16 + 4
    assert [r.get('fill-opacity') for r in data] == [None] * 16 + ['0.5']
    texts = [t.text for t in root.iter(f'{ns}text')]
    assert 'data: 32.0 MiB, 50.0 %, extents: 2' in texts and 'base:allocation' in texts


def test_forms_exclude_each_other(serve):
    assert explains(run('map', '--json', '--svg', 'nbd://h'), USAGE, 'exclude')


# ---- contexts ------------------------------------------------------------------------------

def test_dirty_bitmaps_of_qemu(host):
    image = host.path / 'image.qcow2'

    def tool(*args):
        subprocess.run(args, check=True, capture_output=True)
    tool('qemu-img', 'create', '-f', 'qcow2', image, '64M')
    tool('qemu-io', '-f', 'qcow2', '-c', 'write 0 16M', image)
    tool('qemu-img', 'bitmap', '--add', image, 'today')
    tool('qemu-io', '-f', 'qcow2', '-c', 'write 32M 8M', image)
    with QemuNbd(host, image, format='qcow2', options=['-B', 'today', '-A']) as server:
        lines = ok('map', server.uri).splitlines()
        assert kinds(lines[lines.index('qemu:dirty-bitmap:today'):]) == {
            'dirty': ('8 MiB', '12.5', '1'), 'clean': ('56 MiB', '87.5', '2')}
        assert kinds(lines[lines.index('qemu:allocation-depth'):])['in this image'][0] == '24 MiB'
        cells = picture(lines, 'qemu:dirty-bitmap:today')
        assert [i // 69 for i, c in enumerate(cells) if c == '█'] == [4] * 69
        only = ok('map', '--context=qemu:dirty-bitmap:today', server.uri)
        assert 'base:allocation' not in only and 'dirty' in only
        told = run('map', '--context=base:allocation,no:such', server.uri)
        assert complains(told, FAILED, 'no:such', 'nbdctl info')


def test_nbdkit(host):
    with Nbdkit(host, ['sparse-random', '64M', 'seed=1', 'runlength=1048576']) as server:
        found = kinds(ok('map', server.uri).splitlines())
        assert set(found) == {'data', 'hole, reads as zero'}


def test_more_contexts_than_are_shown(serve):
    uri = serve({f'x:{i}': HALF for i in range(20)})
    r = run('map', uri)
    assert r.returncode == OK and r.stdout.count('\nx:') == 16
    assert r.stderr.startswith('nbdctl: warning: the server has 4 contexts more')
    r = run('map', '--context=' + ','.join(f'x:{i}' for i in range(17)), uri)
    assert complains(r, USAGE, 'at most 16')


def test_more_kinds_than_are_told_apart(serve):
    uri = serve({'x:y': pattern(*[(SIZE // 64, i) for i in range(64)])})
    found = kinds(ok('map', uri).splitlines())
    assert len(found) == 12 and found['other flags'] == ('53 MiB', '82.8', '53')


def test_names_are_escaped(serve):
    name = 'x:\x1b[31m<&"\\'
    uri = serve({name: HALF})
    out = ok('map', uri)
    assert '\x1b' not in out and r'x:\x1b[31m<&"' in out
    assert json.loads(ok('map', '--json', uri))['contexts'][0]['name'] == name
    assert '[31m<&"' in ''.join(xml.fromstring(ok('map', '--svg', uri)).itertext())


# ---- size ----------------------------------------------------------------------------------

def alternating(offset, length, most):
    """Data and holes of 4 KiB in turn, at most so many at once."""
    first, n = offset // 4096, min(length // 4096, most)
    return [(4096, 3 * ((first + i) & 1)) for i in range(n)]


AT_ONCE = 1 << 16
PAYLOAD = p.status_payload(1, alternating(0, 1 << 40, AT_ONCE))


def many(session, request):
    assert request.offset % (AT_ONCE * 4096) == 0
    return p.chunk(request.cookie, p.Chunk.BLOCK_STATUS, PAYLOAD)


@pytest.mark.parametrize('form', [[], ['--json'], ['--svg']], ids=['text', 'json', 'svg'])
def test_a_million_extents_need_no_more_memory(serve, form):
    uri = serve(size=4 << 30, limit_seconds=60, command={Cmd.BLOCK_STATUS: many})
    small = serve()

    def peak(argv):
        """(kilobytes at most, bytes written)"""
        with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
            length = sum(map(len, iter(lambda: process.stdout.read(1 << 16), b'')))
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == OK
        return usage.ru_maxrss, length
    (large, length), (few, _) = (peak([NBDCTL, 'map', *form, u]) for u in (uri, small))
    assert large < few + 8192
    assert (length > 50_000_000) == (form == ['--json'])


def test_progress_is_shown_on_a_terminal(serve):
    uri = serve({'base:allocation': lambda o, n: alternating(o, n, 64)}, size=MIB,
                command={Cmd.BLOCK_STATUS: pieces.delayed(0.3)})
    with Terminal([NBDCTL, 'map', uri]) as t:
        assert t.wait() == OK
        assert re.search(r'\r\x1b\[Kmapping: \d+ %, [\d.]+ \w+ of 1 MiB, \d+ extents', t.output)
        assert t.output.rindex('\r\x1b[K') < t.output.index('base:allocation')
    assert run('map', uri).stderr == ''


# ---- devices, and servers that do not serve -------------------------------------------------

def test_a_device_is_mapped_through_its_server(serve, manager):     # noqa: F811
    uri = serve()
    manager.answers['Status'] = {'parameters': {'devices': [device(uri=uri)], 'warnings': []}}
    out = manager.run('map', 'nbd0')
    assert out.returncode == OK and out.stdout == ok('map', uri)
    assert manager.calls == [('Status', {'device': 'nbd0'})]
    manager.answers['Status'] = {'parameters': {'devices': []}}
    assert complains(manager.run('map', 'nbd0'), FAILED, 'not understood')


def test_a_device_brings_its_keys_of_tls(host, manager):             # noqa: F811
    keys = host.path / 'keys.psk'
    keys.write_text(f'alice:{"a1" * 32}\n')
    keys.chmod(0o600)
    with Nbdkit(host, ['memory', '64M'],
                options=['--tls=require', f'--tls-psk={keys}']) as server:
        needed = {'tls': 'require', 'tls-psk-file': str(keys), 'tls-username': 'alice'}
        manager.answers['Status'] = {'parameters': {'devices': [
            device(uri=server.uri, keys=needed)]}}
        out = manager.run('map', 'root')
        assert out.returncode == OK and 'hole, reads as zero' in out.stdout
        assert complains(manager.run('map', 'root', '--tls-username=bob'), FAILED, 'TLS')
        options = [f'--{key}={value}' for key, value in needed.items()]
        assert ok('map', *options, server.uri) == out.stdout


def test_a_device_needs_the_daemon(tmp_path):
    assert complains(run('map', 'nbd0', directory=tmp_path), NO_DAEMON)


@pytest.mark.parametrize('fields, words', [
    ({'style': 'oldstyle'}, 'too old'), ({'structured': False}, 'does not tell'),
    ({'contexts': {}}, 'does not tell'),
    ({'option': {Opt.GO: pieces.option_error(Rep.ERR_POLICY)}}, 'policy forbids'),
    ({'command': {Cmd.BLOCK_STATUS: pieces.command_error(5)}}, 'Input/output error'),
])
def test_a_server_that_tells_nothing(serve, fields, words):
    uri = serve(**fields)
    assert complains(run('map', uri), FAILED, words)
    assert complains(run('map', '--svg', uri), FAILED, words)


def test_json_that_breaks_off_says_so(serve):
    def once(session, request):
        if request.offset:
            return pieces.command_error(5)(session, request)
        return session.usual(request)
    uri = serve({'base:allocation': lambda o, n: [(MIB, 0)]}, command={Cmd.BLOCK_STATUS: once})
    r = run('map', '--json', uri)
    assert complains(r, FAILED, 'Input/output error')
    m = json.loads(r.stdout)
    assert m['complete'] is False and [e['length'] for e in m['extents']] == [MIB]


def test_blocks_that_nobody_describes_end_it(serve):
    def nothing(session, request):
        return p.chunk(request.cookie, p.Chunk.NONE, b'')
    uri = serve(command={Cmd.BLOCK_STATUS: nothing})
    assert complains(run('map', uri), FAILED)


@pytest.mark.parametrize('name', sorted(n for n, s in SCRIPTS.items() if s.expect != 'silent'
                                        and n != 'slow'))
def test_any_server_gets_a_map_or_one_clear_error(name):
    with ScriptServer(SCRIPTS[name].make({'': Export()})) as server:
        result = run('map', server.uri())
        assert result.returncode == OK or complains(result, FAILED)
        assert not set(result.stdout + result.stderr) & set('\x1b\x07\r')
