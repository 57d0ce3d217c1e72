"""The library is what programs of libnbd expect: symbols and nodes, header, soname."""
import json
import pathlib
import re
import struct
import subprocess

import pytest

from tests.harness.paths import BUILD

HERE = pathlib.Path(__file__).parent
LIBRARY = BUILD / 'libnbd.so.0'
OWN_NODE = 'NBDD_0.1'


def rows(name):
    return [line.split('\t') for line in (HERE / name).read_text().splitlines()
            if not line.startswith('#')]


def run(*argv, **how):
    r = subprocess.run([str(a) for a in argv], capture_output=True, text=True, **how)
    assert r.returncode == 0, r.stdout + r.stderr
    return r.stdout


def exports():
    """{symbol: version node} of what the library defines."""
    found = {}
    for line in run('readelf', '--dyn-syms', '-W', LIBRARY).splitlines():
        m = re.search(r'(FUNC|OBJECT)\s+GLOBAL\s+DEFAULT\s+(?!UND)\S+\s+(\w+)@@?(\S+)', line)
        if m and m[1] == 'FUNC':
            found[m[2]] = m[3]
    return found


def test_exports_are_the_interface_and_our_own_node_and_nothing_more():
    want = {name: node for name, node, _ in rows('api.tsv')}
    have = exports()
    own = {name for name, node in have.items() if node == OWN_NODE}
    assert own and all(name.startswith('nbdd_') for name in own)
    assert {n: v for n, v in have.items() if n not in own} == want


def test_nodes_form_one_chain():
    text = run('readelf', '-V', '-W', LIBRARY)
    text = text[text.index('.gnu.version_d'):].split('\n\n')[0]
    chain, parent = [], {}
    for line in text.splitlines():
        if m := re.search(r'Name: (\S+)$', line):
            chain.append(m[1])
        elif m := re.search(r'Parent 1: (\S+)', line):
            parent[chain[-1]] = m[1]
    assert chain[1:] == ['LIBNBD_1.0', 'LIBNBD_1.2', 'LIBNBD_1.4', 'LIBNBD_1.6', 'LIBNBD_1.8',
                         'LIBNBD_1.12', 'LIBNBD_1.16', 'LIBNBD_1.18', 'LIBNBD_1.22',
                         'LIBNBD_1.24', OWN_NODE]
    assert [parent[n] for n in chain[2:]] == chain[1:-1]


def test_soname_and_no_library_that_a_locked_daemon_must_not_hold():
    text = run('readelf', '-d', '-W', LIBRARY)
    assert 'soname: [libnbd.so.0]' in text
    assert 'NODELETE' in text
    needed = set(re.findall(r'NEEDED.*\[(\S+)\]', text))
    assert not [n for n in needed if 'xml' in n]


def test_what_is_loaded_later_stands_in_an_elf_note(tmp_path):
    run('objcopy', '--dump-section', f'.note.dlopen={tmp_path}/note', LIBRARY, '/dev/null')
    note = (tmp_path / 'note').read_bytes()
    owner_size, size, kind = struct.unpack_from('=III', note)
    assert (note[12:12 + owner_size], kind) == (b'FDO\0', 0x407c0c0a)
    feature, = json.loads(note[12 + owner_size:][:size].rstrip(b'\0'))
    assert feature['feature'] == 'uri' and 'libxml2.so.2' in feature['soname']


def prototype(text):
    return re.sub(r'\s*([(),*])\s*', r'\1', ' '.join(text.split()))


def test_prototypes_are_those_of_the_interface():
    header = (BUILD / 'include' / 'libnbd.h').read_text()
    header = re.sub(r'\n    LIBNBD_ATTRIBUTE\w+\s*\([^)]*\)', '', header)
    have = {m[2]: prototype(m[1]) for m in
            re.finditer(r'^extern ((?:[^;(])*?(\w+) \([^;]*\));', header, re.M)}
    for name, _, text in rows('api.tsv'):
        assert have.pop(name, None) == prototype(text)
    assert not have


def test_constants_have_their_values(tmp_path):
    names = rows('constants.tsv')
    checks = '\n'.join(
        f'if (strcmp({n}, {v})) return {i % 250 + 1};' if v.startswith('"')
        else f'if ({n} != {v}) return {i % 250 + 1};' for i, (n, v) in enumerate(names))
    source = tmp_path / 'c.c'
    source.write_text('#include <libnbd.h>\n#include <string.h>\n'
                      f'int main(void) {{ {checks} return 0; }}\n')
    run('gcc', '-I', BUILD / 'include', '-o', tmp_path / 'c', source)
    run(tmp_path / 'c')


USE = '''
#include <libnbd.h>
#include <nbdd.h>
#include <string.h>
static int done(void *data, int *error) { (void)data; return *error ? -1 : 1; }
int main(void)
{
  struct nbd_handle *h = nbd_create();
  nbd_completion_callback cb;
  char buf[512];
  memset(&cb, 0, sizeof cb);
  cb.callback = done;
  if (nbd_aio_pread(h, buf, sizeof buf, 0, cb, 0) != -1) return 1;
  if (nbd_aio_flush(h, NBD_NULL_COMPLETION, 0) != -1) return 2;
  nbd_close(h);
  return 0;
}
'''


@pytest.mark.parametrize('compiler, flags, suffix', [
    ('gcc', '-std=gnu89 -Wno-long-long', 'c'), ('gcc', '-std=c11 -pedantic', 'c'),
    ('gcc', '-std=gnu17', 'c'), ('g++', '-std=c++17 -pedantic', 'cc')])
def test_headers_compile(tmp_path, compiler, flags, suffix):
    source = tmp_path / f'use.{suffix}'
    source.write_text(USE)
    run(compiler, *flags.split(), '-Wall', '-Wextra', '-Werror', '-I', BUILD / 'include',
        '-o', tmp_path / 'use', source, '-L', BUILD, '-lnbd')
    run(tmp_path / 'use', env={'LD_LIBRARY_PATH': str(BUILD)})


SYSTEM = pathlib.Path('/usr/include/libnbd.h')
PLAIN = USE.replace('#include <nbdd.h>\n', '')


@pytest.mark.skipif(not SYSTEM.exists(), reason='the distribution\'s libnbd-dev is not there')
@pytest.mark.parametrize('built_with', ['ours', 'theirs'])
def test_program_built_with_one_runs_with_the_other(tmp_path, built_with):
    source = tmp_path / 'use.c'
    source.write_text(PLAIN)
    ours = ['-I', BUILD / 'include', '-L', BUILD]
    run('gcc', '-o', tmp_path / 'use', source, *(ours if built_with == 'ours' else []), '-lnbd')
    for path in ({'LD_LIBRARY_PATH': str(BUILD)}, {}):
        run(tmp_path / 'use', env=path)


def test_library_may_be_unloaded_by_a_thread_that_had_an_error(tmp_path):
    source = tmp_path / 'unload.c'
    source.write_text('''
#include <dlfcn.h>
#include <pthread.h>
#include <stddef.h>
static void *work(void *path)
{
  void *lib = dlopen(path, RTLD_NOW);
  void *(*create)(void) = (void *(*)(void))dlsym(lib, "nbd_create");
  int (*flush)(void *, unsigned) = (int (*)(void *, unsigned))dlsym(lib, "nbd_flush");
  void (*close)(void *) = (void (*)(void *))dlsym(lib, "nbd_close");
  void *h = create();
  void *failed = flush(h, 0) == -1 ? NULL : h;
  close(h);
  dlclose(lib);
  return failed;
}
int main(int argc, char **argv)
{
  pthread_t t;
  void *r;
  for (int i = 0; i < 20; i++) {
    pthread_create(&t, NULL, work, argv[argc - 1]);
    pthread_join(t, &r);
    if (r) return 1;
  }
  return 0;
}
''')
    run('gcc', '-o', tmp_path / 'unload', source, '-pthread')
    run(tmp_path / 'unload', LIBRARY)


def test_pkg_config_file_leads_to_header_and_library(tmp_path):
    env = {'PKG_CONFIG_PATH': str(BUILD), 'PATH': '/usr/bin:/bin'}
    flags = run('pkg-config', f'--define-variable=includedir={BUILD}/include',
                f'--define-variable=libdir={BUILD}', '--cflags', '--libs', 'libnbd',
                env=env).split()
    source = tmp_path / 'use.c'
    source.write_text(USE)
    run('gcc', '-o', tmp_path / 'use', source, *flags)
    run(tmp_path / 'use', env={'LD_LIBRARY_PATH': str(BUILD)})
    assert run('pkg-config', '--modversion', 'libnbd', env=env).startswith('1.24.')


def test_every_call_has_its_manual_page():
    pages = BUILD / 'man'
    for name in [*exports(), 'libnbd']:
        text = (pages / f'{name}.3').read_text()
        for section in ('NAME', 'SYNOPSIS', 'DESCRIPTION'):
            assert f'\n.SH {section}\n' in text, name
        if name != 'libnbd':
            assert '\n.SH RETURN VALUE\n' in text and '\n.SH EXAMPLE\n' in text, name


def test_manual_pages_refer_to_pages_that_exist():
    pages = {p.stem for p in (BUILD / 'man').glob('*.3')} | {'sd_listen_fds'}
    for page in (BUILD / 'man').glob('*.3'):
        for name in re.findall(r'\\fB(\w+)\\fR\(3\)', page.read_text()):
            assert name in pages, f'{page.name} refers to {name}(3)'
