"""What is wrong in nbdd.conf and nbdtab is told exactly: where, what, and what is allowed."""
import os

import pytest

from tests.conf.files import check

OK = 'uri = nbd://good\n'


def section(*lines):
    """A section with these lines from line 2 on, and a sound one after it."""
    return '[x]\n' + ''.join(line + '\n' for line in lines) + '[good]\n' + OK


def key(text):
    return section(text, 'uri = nbd://s')


# name: (a broken nbdd.conf, its only problem); what is sound in it is still read.
CONF = {
    'unknown key': (key('conections = 3'),
                    "c:2: error: unknown key 'conections'; did you mean 'connections'?"),
    'unknown key, two letters swapped': (
        key('expotr = a'), "c:2: error: unknown key 'expotr'; did you mean 'export'?"),
    'unknown key of the section': (
        key('devise = /dev/nbd0'),
        "c:2: error: unknown key 'devise'; did you mean 'device'?"),
    'unknown key, near none': (
        key('colour = red'),
        "c:2: error: unknown key 'colour'; nbdd.conf(5) lists all keys"),
    'unknown key, short': (key('x = 1'),
                           "c:2: error: unknown key 'x'; nbdd.conf(5) lists all keys"),
    'unknown key, very long': (
        key('k' * 300 + ' = 1'),
        "c:2: error: unknown key '" + 'k' * 124 + "...'; nbdd.conf(5) lists all keys"),
    'unknown key with control bytes': (
        key('a\x1b[2J = 1'),
        "c:2: error: unknown key 'a\\x1b[2J'; nbdd.conf(5) lists all keys"),
    'key of another letter case': (key('Export = a'),
                                   "c:2: error: unknown key 'Export'; did you mean 'export'?"),
    'port too large': (
        section('addresses = s', 'port = 65536'),
        "c:3: error: port: '65536' is out of range; allowed is a number from 1 to 65535"),
    'port 0': (
        section('addresses = s', 'port = 0'),
        "c:3: error: port: '0' is out of range; allowed is a number from 1 to 65535"),
    'port beyond 64 bits': (
        section('addresses = s', 'port = 99999999999999999999'),
        "c:3: error: port: '99999999999999999999' is out of range; allowed is a number from 1 "
        "to 65535"),
    'port negative': (
        section('addresses = s', 'port = -1'),
        "c:3: error: port: '-1' is not a number; allowed is a number from 1 to 65535"),
    'port empty': (
        section('addresses = s', 'port ='),
        "c:3: error: port: '' is not a number; allowed is a number from 1 to 65535"),
    'comment with a hash after a value': (
        section('addresses = s', 'port = 1 # one'),
        "c:3: error: port: '1 # one' is not a number; allowed is a number from 1 to 65535"),
    'tls': (key('tls = maybe'),
            "c:2: error: tls: 'maybe' is none of its values; allowed is off, allow or require"),
    'truth': (key('swap = perhaps'),
              "c:2: error: swap: 'perhaps' is neither yes nor no; allowed is yes or no"),
    'connections 0': (
        key('connections = 0'),
        "c:2: error: connections: '0' is out of range; allowed is auto or a number from 1 to "
        "16"),
    'block size no power of two': (
        key('block-size = 1536'),
        "c:2: error: block-size: '1536' is not a power of two; allowed is 0, or a power of two "
        "from 512 to 4096 bytes"),
    'block size too large': (
        key('block-size = 64k'),
        "c:2: error: block-size: '64k' is out of range; allowed is 0, or a power of two from "
        "512 to 4096 bytes"),
    'block size no size': (
        key('block-size = big'),
        "c:2: error: block-size: 'big' is not a size; allowed is 0, or a power of two from 512 "
        "to 4096 bytes"),
    'time': (
        key('connect-timeout = 5 parsecs'),
        "c:2: error: connect-timeout: '5 parsecs' is not a time; allowed is a time from 100ms "
        "to 1h"),
    'part of a second': (
        key('timeout = 1500ms'),
        "c:2: error: timeout: '1500ms' is not in whole seconds; allowed is 0, or a time from "
        "1s to 30d in whole seconds"),
    'time too short': (
        key('requeue-interval = 99ms'),
        "c:2: error: requeue-interval: '99ms' is out of range; allowed is 0, or a time from "
        "100ms to 1h"),
    'infinity where there is none': (
        key('timeout = infinity'),
        "c:2: error: timeout: 'infinity' is out of range; allowed is 0, or a time from 1s to "
        "30d in whole seconds"),
    'time beyond 64 bits': (
        key('dead-timeout = 9999999999999999d'),
        "c:2: error: dead-timeout: '9999999999999999d' is out of range; allowed is 0, or a time "
        "from 1s to 3650d in whole seconds, or infinity"),
    'uri of another scheme': (
        section('uri = http://s/e'),
        "c:2: error: uri: 'http://s/e' is not an NBD URI; allowed is nbd://HOST[:PORT]/EXPORT, "
        "nbd+unix:///EXPORT?socket=PATH, or nbds for TLS instead of nbd"),
    'relative path': (
        key('tls-certificates = certs'),
        "c:2: error: tls-certificates: 'certs' is not an absolute path; allowed is an absolute "
        "path of at most 4095 bytes"),
    'a priority that is a name': (
        key('tls-priority = @SYSTEM'),
        "c:2: error: tls-priority: '@SYSTEM' is a name in a file, which no connection can read; "
        "allowed is a text of at most 1023 bytes, not beginning with @"),
    'empty identifier': (
        key('identifier ='),
        "c:2: error: identifier: '' is empty; allowed is a text of at most 255 bytes"),
    'identifier too long': (
        key('identifier = ' + 'i' * 256),
        "c:2: error: identifier: '" + 'i' * 124 + "...' is too long; allowed is a text of at "
        "most 255 bytes"),
    'export of 4097 bytes': (
        key('export = ' + 'e' * 4097),
        "c:2: error: export: '" + 'e' * 124 + "...' is too long; allowed is a text of at most "
        "4096 bytes, which may be empty"),
    'control byte in a value': (
        key('export = a\x07b'),
        "c:2: error: export: 'a\\x07b' is not printable UTF-8 text; allowed is a text of at "
        "most 4096 bytes, which may be empty"),
    'invalid UTF-8 in a value': (
        section('uri = nbd://s').encode().replace(b'[good]', b'export = \xe9t\xe9\n[good]'),
        "c:3: error: export: '\\xe9t\\xe9' is not printable UTF-8 text; allowed is a text of at "
        "most 4096 bytes, which may be empty"),
    'text that turns its direction': (
        key('export = a\u202eb'),
        "c:2: error: export: 'a\\xe2\\x80\\xaeb' is not printable UTF-8 text; allowed is a text "
        "of at most 4096 bytes, which may be empty"),
    'address with a blank': (
        section('addresses = a b'),
        "c:2: error: addresses: 'a b' is not a list of servers; allowed is up to 16 of HOST, "
        "HOST:PORT, [ADDRESS]:PORT or /SOCKET, separated by commas"),
    'empty address in the list': (
        section('addresses = a,,b'),
        "c:2: error: addresses: 'a,,b' is not a list of servers; allowed is up to 16 of HOST, "
        "HOST:PORT, [ADDRESS]:PORT or /SOCKET, separated by commas"),
    'seventeen addresses': (
        section('addresses = ' + ','.join('abcdefghijklmnopq')),
        "c:2: error: addresses: 'a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q' is too long a list; "
        "allowed is up to 16 of HOST, HOST:PORT, [ADDRESS]:PORT or /SOCKET, separated by "
        "commas"),
    'key twice': (section('uri = nbd://a', 'tls = off', 'uri = nbd://b'),
                  'c:4: error: uri is set twice; it is already on line 2'),
    'key and its alias': (key('block-size = 512\nbs = 1k'),
                          'c:3: error: block-size is set twice; it is already on line 2'),
    'device twice': (key('device = nbd1\ndevice = nbd1'),
                     'c:3: error: device is set twice; it is already on line 2'),
    'no device': (key('device = /dev/sda'),
                  "c:2: error: device: '/dev/sda' is not a device; allowed is /dev/nbdN"),
    'device beside the name': (
        '[nbd1]\ndevice = /dev/nbd2\n' + OK + '[good]\n' + OK,
        "c:2: error: device: '/dev/nbd2' contradicts the section's name, [nbd1]; give the "
        "section another name"),
    'device of two sections': (
        '[good]\ndevice = nbd4\n' + OK + '[x]\n' + OK + 'device = /dev/nbd4\n',
        'c:6: error: device: /dev/nbd4 is already that of [good] on line 1; each section needs '
        'its own'),
    'auto': (key('auto = maybe'),
             "c:2: error: auto: 'maybe' is neither yes nor no; allowed is yes or no"),
    'section twice': ('[good]\n' + OK + '[good]\nuri = nbd://other\n',
                      'c:3: error: [good] is there twice; it is already on line 1'),
    'section twice, as a path': (
        '[good]\n' + OK + '[nbd0]\n' + OK + '[/dev/nbd0]\nuri = nbd://other\n',
        'c:5: error: [nbd0] is there twice; it is already on line 3'),
    'defaults twice': ('[defaults]\n[defaults]\nswap = yes\n[good]\n' + OK,
                       'c:2: error: [defaults] is there twice; allowed is once'),
    'default': ('[default]\ntls = off\n[good]\n' + OK,
                'c:1: error: unknown section [default]; did you mean [defaults]?'),
    'no name': ('[]\nuri = nbd://x\n[good]\n' + OK,
                "c:1: error: '' is not a name; allowed are up to 128 letters, digits and "
                "._@:-, not starting with . or -"),
    'bad name': ('[a b]\nuri = nbd://x\n[good]\n' + OK,
                 "c:1: error: 'a b' is not a name; allowed are up to 128 letters, digits and "
                 "._@:-, not starting with . or -"),
    'name like a path': ('[../x]\n[good]\n' + OK,
                         "c:1: error: '../x' is not a name; allowed are up to 128 letters, "
                         "digits and ._@:-, not starting with . or -"),
    'name of 50 bytes': ('[' + 'n' * 50 + ']\nuri = nbd://x\n[good]\n' + OK,
                         'c:1: error: the name of the section is too long; at most 49 bytes '
                         'are allowed'),
    'no bracket': ('[x\nuri = nbd://x\n[good]\n' + OK,
                   'c:1: error: the ] after the name of the section is missing'),
    'bracket in a comment': ('[x ;]\nuri = nbd://x\n[good]\n' + OK,
                             'c:1: error: the ] after the name of the section is missing'),
    'text after the head': ('[x] yes\nuri = nbd://x\n[good]\n' + OK,
                            'c:1: error: there is text after the ]; a section is [NAME]'),
    'bad head after a sound section': (
        '[good]\n' + OK + '[x\nfrobnicate = 1\n',
        'c:3: error: the ] after the name of the section is missing'),
    'no =': (key('read-only'), 'c:2: error: there is no = on the line; a line is KEY = VALUE'),
    'nothing before =': (key('= 1'), 'c:2: error: there is nothing before the =; a line is KEY '
                                     '= VALUE'),
    'key before a section': ('tls = off\n[good]\n' + OK,
                             'c:1: error: a key stands before the first section; [NAME] of a '
                             'device or [defaults] comes first'),
    'long line': (key('export = ' + 'e' * 5000),
                  'c:2: error: the line is 5009 bytes long; allowed are 4349'),
    'NUL byte': (key('export = a\0b'),
                 'c:2: error: the line holds a NUL byte; a text file is expected'),
    'no server': (section('export = e'),
                  'c:1: error: no server is named; uri or addresses is needed'),
    'empty section': ('[x]\n[good]\n' + OK,
                      'c:1: error: no server is named; uri or addresses is needed'),
    'empty section at the end': ('[good]\n' + OK + '\n[x]',
                                 'c:4: error: no server is named; uri or addresses is needed'),
    'uri and addresses': (key('addresses = a'),
                          'c:1: error: uri and addresses are both set; allowed is one of them'),
    'uri and port': (key('port = 1'),
                     'c:1: error: port does not go with uri; write the port into the URI'),
    'TLS off by key, on by URI': (
        section('uri = nbds://s', 'tls = off'),
        'c:1: error: tls is off but the URI asks for TLS; write nbd instead of nbds, or leave '
        'tls out'),
    'TLS set up but not on': (
        key('tls-hostname = h'),
        'c:1: error: TLS is set up but not on; allowed are tls=allow, require, or off to say '
        'so'),
    'two credentials': (
        section('uri = nbds://s', 'tls-psk-file = /k', 'tls-certificates = /c'),
        'c:1: error: tls-certificates and tls-psk-file are both set; allowed is one of them'),
    'delays that cross': (
        key('reconnect-delay = 6s'),
        'c:1: error: reconnect-delay is longer than reconnect-delay-max; allowed is at most '
        'that'),
    'no time for a probe': (
        key('keepalive = 4s'),
        'c:1: error: keepalive is not shorter than keepalive-timeout; a probe needs time for '
        'its answer'),
    'files and a directory': (
        section('uri = nbds://s', 'tls-ca-file = /c.pem', 'tls-certificates = /c'),
        'c:1: error: tls-ca-file, tls-cert-file or tls-key-file is set beside '
        'tls-certificates; allowed are the files or the directory'),
    'files and a shared key': (
        section('uri = nbds://s', 'tls-key-file = /c.pem', 'tls-psk-file = /k'),
        'c:1: error: tls-ca-file, tls-cert-file or tls-key-file is set beside tls-psk-file; '
        'allowed are certificates or a shared key'),
    'files without TLS': (
        section('uri = nbd://s', 'tls-ca-file = /c.pem'),
        'c:1: error: TLS is set up but not on; allowed are tls=allow, require, or off to say '
        'so'),
    'uri in defaults': ('[good]\n' + OK + '[defaults]\nuri = nbd://s\n',
                        'c:4: error: uri belongs to one device; it is not allowed in '
                        '[defaults]'),
    'device in defaults': ('[good]\n' + OK + '[defaults]\ndevice = nbd0\n',
                           'c:4: error: device belongs to one device; it is not allowed in '
                           '[defaults]'),
}


@pytest.mark.parametrize('case', CONF)
def test_nbdd_conf_problem(case, tmp_path):
    text, problem = CONF[case]
    r = check(tmp_path, conf=text)
    assert r.problems == [problem]
    assert r.status == 1
    assert [n for n in r.devices if n != 'nbd0'] == ['good']


def test_broken_defaults_leave_out_the_devices_after_them(tmp_path):
    r = check(tmp_path, conf='[before]\nuri = nbd://a\n[defaults]\ntls = on\n[after]\n' + OK)
    assert r.problems == [
        "c:4: error: tls: 'on' is none of its values; allowed is off, allow or require",
        'c:5: error: [after] is left out because [defaults] is broken on line 4']
    assert list(r.devices) == ['before']


GOOD_LINE = 'nbd9 server export\n'
FEW = 'there are less than three fields; a line is DEVICE HOST EXPORT [OPTION[,OPTION...]]'
MANY = 'there are more than four fields; a line is DEVICE HOST EXPORT [OPTION[,OPTION...]]'

# name: (a broken nbdtab line, its only problem); the sound line after it is still read.
TAB = {
    'one field': ('nbd0', 't:1: error: ' + FEW),
    'two fields': ('nbd0 host', 't:1: error: ' + FEW),
    'export in a comment': ('nbd0 host #export', 't:1: error: ' + FEW),
    'five fields': ('nbd0 host export swap persist', 't:1: error: ' + MANY),
    'blank in the options': ('nbd0 host export swap, persist', 't:1: error: ' + MANY),
    'a disk': ('sda host export',
               "t:1: error: 'sda' is not a device; allowed is nbdN or /dev/nbdN"),
    'a partition': ('nbd0p1 host export',
                    "t:1: error: 'nbd0p1' is not a device; allowed is nbdN or /dev/nbdN"),
    'a leading zero': ('nbd00 host export',
                       "t:1: error: 'nbd00' is not a device; allowed is nbdN or /dev/nbdN"),
    'another directory': (
        '/dev/x/nbd0 host export',
        "t:1: error: '/dev/x/nbd0' is not a device; allowed is nbdN or /dev/nbdN"),
    'an index too large': (
        'nbd1048576 host export',
        "t:1: error: 'nbd1048576' is not a device; allowed is nbdN or /dev/nbdN"),
    'two hosts': (
        'nbd0 a,b/c export',
        "t:1: error: addresses: 'a,b/c' is not a list of servers; allowed is up to 16 of HOST, "
        "HOST:PORT, [ADDRESS]:PORT or /SOCKET, separated by commas"),
    'a URI': (
        'nbd0 nbd://host export',
        "t:1: error: addresses: 'nbd://host' is not a list of servers; allowed is up to 16 of "
        "HOST, HOST:PORT, [ADDRESS]:PORT or /SOCKET, separated by commas"),
    'port': ('nbd0 host export port=ten',
             "t:1: error: port: 'ten' is not a number; allowed is a number from 1 to 65535"),
    'port without a value': (
        'nbd0 host export port',
        't:1: error: port: needs a value; allowed is a number from 1 to 65535'),
    'bs': ('nbd0 host export bs=1000',
           "t:1: error: block-size: '1000' is not a power of two; allowed is 0, or a power of "
           "two from 512 to 4096 bytes"),
    'conns': ('nbd0 host export conns=0',
              "t:1: error: connections: '0' is out of range; allowed is auto or a number from 1 "
              "to 16"),
    'preinit': ('nbd0 host export preinit',
                't:1: error: preinit is set without size, which no handshake tells then'),
    'sdp': ('nbd0 host export sdp',
            't:1: error: sdp: the Sockets Direct Protocol is gone from the kernel: leave sdp '
            'out'),
    'keyfile': ('nbd0 host export keyfile=k',
                "t:1: error: tls-key-file: 'k' is not an absolute path; allowed is an absolute "
                'path of at most 4095 bytes'),
    'empty option': ('nbd0 host export swap,,persist',
                     't:1: error: an option is empty; options are joined by single commas '
                     'without blanks'),
    'comma at the end': ('nbd0 host export swap,',
                         't:1: error: an option is empty; options are joined by single commas '
                         'without blanks'),
    'unix without a path': ('nbd0 host export unix',
                            't:1: error: unix is set but the second field is no absolute path; '
                            'allowed is the path of a socket'),
    'uri beside the host': ('nbd0 host export uri=nbd://x',
                            't:1: error: uri and addresses are both set; allowed is one of '
                            'them'),
    'auto': ('nbd0 host export auto=maybe',
             "t:1: error: auto: 'maybe' is neither yes nor no; allowed is yes or no"),
    'NUL byte': ('nbd0 host export\0',
                 't:1: error: the line holds a NUL byte; a text file is expected'),
    'control byte': ('nbd0 host ex\x01port',
                     "t:1: error: export: 'ex\\x01port' is not printable UTF-8 text; allowed is "
                     "a text of at most 4096 bytes, which may be empty"),
    'very long': ('nbd0 ' + 'h' * 70000 + ' export',
                  "t:1: error: addresses: '" + 'h' * 124 + "...' is too long; allowed is up to "
                  "16 of HOST, HOST:PORT, [ADDRESS]:PORT or /SOCKET, separated by commas"),
}


@pytest.mark.parametrize('case', TAB)
def test_nbdtab_problem(case, tmp_path):
    line, problem = TAB[case]
    r = check(tmp_path, tab=line + '\n' + GOOD_LINE)
    assert r.problems == [problem]
    assert (list(r.devices), r.status) == (['nbd9'], 1)


# name: (lines, the warning); the device is set up all the same.
WARNINGS = {
    'unknown option': ('nbd0 h e frob', "unknown key 'frob'; nbdd.conf(5) lists all keys"),
    'mistyped option': ('nbd0 h e presist', "unknown key 'presist'; did you mean 'persist'?"),
    'hash inside a word': ('nbd0 h e swap#2',
                           "unknown key 'swap#2'; did you mean 'swap'?"),
    'option twice': ('nbd0 h e port=1,port=2', 'port is given twice; the last one counts'),
}


@pytest.mark.parametrize('case', WARNINGS)
def test_nbdtab_warning_keeps_the_device(case, tmp_path):
    line, warning = WARNINGS[case]
    r = check(tmp_path, tab=line)
    assert r.problems == ['t:1: warning: ' + warning]
    assert (list(r.devices), r.status) == (['nbd0'], 0)


def test_the_first_line_of_a_device_counts(tmp_path):
    r = check(tmp_path, tab='nbd0 first e\n\n/dev/nbd0 second e\n')
    assert r.problems == ['t:3: warning: nbd0 is already set up on line 1; the first line '
                          'counts']
    assert r.devices['nbd0']['addresses'] == 'first'


def test_a_broken_first_line_is_not_replaced_by_a_later_one(tmp_path):
    r = check(tmp_path, tab='nbd0 first e port=x\nnbd0 second e\n')
    assert [p[:10] for p in r.problems] == ['t:1: error', 't:2: warni']
    assert r.devices == {}


@pytest.mark.parametrize('head', ['[nbd3]\n', '[data]\ndevice = /dev/nbd3\n'])
def test_nbdd_conf_counts_where_both_files_set_up_a_device(head, tmp_path):
    r = check(tmp_path, conf=head + OK, tab='nbd3 other e\n')
    assert r.problems == ['t:1: warning: nbd3 is already set up in c, line 1, which counts']
    assert [d.get('uri') for d in r.devices.values()] == ['nbd://good']


def test_a_broken_section_is_not_replaced_by_nbdtab(tmp_path):
    r = check(tmp_path, conf='[nbd3]\nfrob = 1\n', tab='nbd3 other e\n')
    assert [p[:10] for p in r.problems] == ['c:2: error', 't:1: warni']
    assert r.devices == {}


# What the whole file is, and what is told of it; {} is c or t.
FILES = {
    'UTF-16': ('[x]\n'.encode('utf-16'),
               '{}:1: error: is written in UTF-16; save it as UTF-8'),
    'too large': (b'# comment\n' * 104858,
                  '{}: error: is too large; at most 1048576 bytes are allowed'),
}


@pytest.mark.parametrize('which', ['conf', 'tab'])
@pytest.mark.parametrize('case', FILES)
def test_a_file_of_the_wrong_kind_is_one_problem(which, case, tmp_path):
    text, problem = FILES[case]
    r = check(tmp_path, **{which: text})
    assert r.problems == [problem.format(which[0])]


def make_directory(path):
    path.mkdir()


def make_loop(path):
    path.symlink_to(path)


STRANGE = {
    'directory': (make_directory, 'is a directory; a text file is expected'),
    'FIFO': (os.mkfifo, 'is not a file; a text file is expected'),
    'link to itself': (make_loop, 'cannot be opened: Too many levels of symbolic links'),
    'endless device': (lambda p: p.symlink_to('/dev/zero'),
                       'is not a file; a text file is expected'),
}


@pytest.mark.parametrize('name', ['nbdd.conf', 'nbdtab'])
@pytest.mark.parametrize('case', STRANGE)
def test_what_is_no_file_is_one_problem_and_blocks_nothing(name, case, tmp_path):
    make, problem = STRANGE[case]
    make(tmp_path / name)
    other = {'tab': GOOD_LINE} if name == 'nbdd.conf' else {'conf': '[nbd9]\n' + OK}
    r = check(tmp_path, **other)
    assert r.problems == [f'{"c" if name == "nbdd.conf" else "t"}: error: {problem}']
    assert list(r.devices) == ['nbd9']


def test_a_file_that_cannot_be_opened_is_one_problem(tmp_path):
    # Root may read everything, so the way leads through a file that is no directory.
    (tmp_path / 'file').write_text('')
    r = check(tmp_path, one=tmp_path / 'file' / 'nbdtab')
    assert r.problems == [f'{tmp_path}/file/nbdtab: error: cannot be opened: Not a directory']


def test_a_file_masked_by_dev_null_is_empty(tmp_path):
    (tmp_path / 'nbdtab').symlink_to('/dev/null')
    r = check(tmp_path)
    assert (r.problems, r.devices, r.status) == ([], {}, 0)


def test_a_missing_file_is_empty_unless_it_was_asked_for(tmp_path):
    assert check(tmp_path).problems == []
    r = check(tmp_path, one=tmp_path / 'nbdtab')
    assert (r.problems, r.status) == (['t: error: there is no such file'], 1)


def test_reading_stops_after_255_problems(tmp_path):
    r = check(tmp_path, tab='x y z\n' * 1000, conf='[c]\n' + OK)
    assert len(r.problems) == 256
    assert r.problems[-1] == ('t:256: error: 255 problems in this file; the rest of it is not '
                              'read')
    assert list(r.devices) == ['c']


@pytest.mark.parametrize('line', ['[c] x\n', '[x]\nport = 0\n', 'x\n', '[defaults]\n'])
def test_reading_nbdd_conf_stops_after_255_problems(line, tmp_path):
    r = check(tmp_path, conf='[c]\n' + OK + line * 600, tab=GOOD_LINE)
    assert len(r.problems) == 256 and 'the rest of it is not read' in r.problems[-1]
    assert 'nbd9' in r.devices


def test_reading_stops_after_1024_devices(tmp_path):
    r = check(tmp_path, tab=''.join(f'nbd{i} h e\n' for i in range(1030)))
    assert r.problems == ['t:1025: error: more than 1024 devices; the rest of this file is not '
                          'read']
    assert len(r.devices) == 1024


def test_problems_come_in_the_order_of_lines(tmp_path):
    r = check(tmp_path, conf='[a]\n[b]\nx1 = 1\nx2 = 2\n[c]\nexport = e\nx3 = 3\n[d]\n'
                             'device = nbd0\nuri = nbd://s\n[nbd0]\nuri = nbd://s\n')
    assert [p.split(':')[1] for p in r.problems] == ['1', '3', '4', '7', '11']


@pytest.mark.parametrize('name, text, kind', [
    ('a.conf', 'nbd0 h e\n', 'no ='),
    ('my.nbdtab', '[x]\n', 'not a device'),
    ('anything', '\n; comment\n  [x]\n', 'no server'),
    ('other', '# c\nx = 1\n', 'not a device'),
])
def test_the_kind_of_a_single_file_is_told_by_name_or_first_line(name, text, kind, tmp_path):
    path = tmp_path / name
    path.write_text(text)
    r = check(tmp_path, one=path)
    assert len(r.problems) == 1 and kind in r.problems[0]
