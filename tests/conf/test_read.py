"""What is sound in nbdd.conf and nbdtab is read as it was meant."""
import pytest

from tests.conf.files import check


def conf(tmp_path, text):
    r = check(tmp_path, conf=text)
    assert r.problems == []
    return r.devices


def tab(tmp_path, text):
    r = check(tmp_path, tab=text)
    assert r.problems == []
    return r.devices


def test_sections_take_defaults_and_may_set_their_own(tmp_path):
    d = conf(tmp_path, '''
; comment
# comment
[plain]
uri = nbd://s/e
[defaults]
addresses = s1, s2:10810 , [::1]:5
dead-timeout = 1min 30s
tls = require
tls-certificates = /etc/nbd

[one]   ; comment
  device = /dev/nbd5    ; indented is not joined to the line before
  export = e x;y
  auto = no
[two]
uri: nbd+unix:///e?socket=/run/x
tls = off
persist = yes
_local = x
dead-timeout=infinity
''')
    assert d == {
        'plain': {'index': '-1', 'auto': '1', 'line': '4', 'uri': 'nbd://s/e'},
        'one': {'index': '5', 'auto': '0', 'line': '12', 'addresses': 's1,s2:10810,[::1]:5',
                'export': 'e', 'dead-timeout': '90s', 'tls': 'require',
                'tls-certificates': '/etc/nbd'},
        'two': {'index': '-1', 'auto': '1', 'line': '16',
                'uri': 'nbd+unix:///e?socket=/run/x', 'tls': 'off',
                'tls-certificates': '/etc/nbd', 'dead-timeout': 'infinity'}}


@pytest.mark.parametrize('name, index', [('nbd7', '7'), ('/dev/nbd7', '7')])
def test_a_section_called_as_a_device_is_that_device(name, index, tmp_path):
    d = conf(tmp_path, f'[{name}]\ndevice=/dev/nbd7\nuri=nbd://s')
    assert list(d) == ['nbd7'] and d['nbd7']['index'] == index


# The same file as editors on other systems leave it.
SHAPES = {
    'CRLF': lambda t: t.replace('\n', '\r\n'),
    'BOM': lambda t: '\ufeff' + t,
    'no newline at the end': lambda t: t.rstrip('\n'),
    'blanks at the end of lines': lambda t: t.replace('\n', ' \t\n'),
    'blanks at the start of lines': lambda t: ' \t' + t.replace('\n', '\n\t ').rstrip(),
    'empty lines': lambda t: '\n\n' + t.replace('\n', '\n\n'),
    'all at once': lambda t: '\ufeff' + t.replace('\n', '  \r\n\r\n').rstrip(),
}


@pytest.mark.parametrize('shape', SHAPES)
def test_the_shape_of_nbdd_conf_does_not_matter(shape, tmp_path):
    d = conf(tmp_path, SHAPES[shape]('[a]\nuri = nbd://s\nexport = é\n[b]\naddresses = t\n'))
    assert d['a']['export'] == 'é' and d['b']['addresses'] == 't'


@pytest.mark.parametrize('shape', SHAPES)
def test_the_shape_of_nbdtab_does_not_matter(shape, tmp_path):
    d = tab(tmp_path, SHAPES[shape]('# comment\nnbd0 s e swap\n/dev/nbd1\t /x\te # z\n'))
    assert d == {'nbd0': {'index': '0', 'auto': '0', 'line': d['nbd0']['line'],
                          'addresses': 's', 'export': 'e', 'swap': 'yes'},
                 'nbd1': {'index': '1', 'auto': '0', 'line': d['nbd1']['line'],
                          'addresses': '/x', 'export': 'e'}}


def keys_of_line(tmp_path, line):
    (d,) = tab(tmp_path, line).values()
    return {k: v for k, v in d.items() if k not in ('index', 'line')}


@pytest.mark.parametrize('options, keys', [
    ('bs=4096,timeout=30,dead-timeout=60,conns=4,port=10810',
     {'block-size': '4096', 'timeout': '30s', 'dead-timeout': '1min', 'connections': '4',
      'port': '10810'}),
    ('timeout=0,dead-timeout=0', {'timeout': '0', 'dead-timeout': '0'}),
    ('swap,persist,no_optgo,_netdev,_x=1', {'swap': 'yes'}),
    ('tls,priority=NORMAL:-VERS-ALL',
     {'tls': 'require', 'tls-priority': 'NORMAL:-VERS-ALL'}),
    ('tlshostname=h', {'tls': 'require', 'tls-hostname': 'h'}),
    ('certfile=/c,keyfile=/k,cacertfile=/a',
     {'tls': 'require', 'tls-cert-file': '/c', 'tls-key-file': '/k', 'tls-ca-file': '/a'}),
    ('tlshostname=h,tls=allow', {'tls': 'allow', 'tls-hostname': 'h'}),
    ('auto,read-only,reconnect-delay-max=1min,requeue-interval=200ms',
     {'auto': '1', 'read-only': 'yes', 'reconnect-delay-max': '1min',
      'requeue-interval': '200ms'}),
    ('identifier=a#b #comment', {'identifier': 'a#b'}),
])
def test_nbdtab_options(options, keys, tmp_path):
    expected = {'auto': '0', 'addresses': 's', 'export': 'e', **keys}
    assert keys_of_line(tmp_path, f'nbd0 s e {options}') == expected


@pytest.mark.parametrize('host', ['server', 'server.example.com:10810', '192.0.2.1', '::1',
                                  'fe80::1%eth0', '[fe80::1%eth0]:10810', '/run/nbd.sock'])
def test_nbdtab_host(host, tmp_path):
    assert keys_of_line(tmp_path, f'nbd0 {host} e')['addresses'] == host


def test_nbdtab_unix_goes_with_a_path(tmp_path):
    assert keys_of_line(tmp_path, 'nbd0 /run/x e unix,swap')['addresses'] == '/run/x'


def test_an_uncommon_export_name_survives(tmp_path):
    assert keys_of_line(tmp_path, 'nbd0 s data#1=x,\\é')['export'] == 'data#1=x,\\é'


def test_both_files_together(tmp_path):
    r = check(tmp_path, conf='[a]\nuri=nbd://s\n', tab='nbd0 h e\n')
    assert (list(r.devices), r.problems) == (['a', 'nbd0'], [])
