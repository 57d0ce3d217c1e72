"""What the compiled objects say: no mutable globals, no dangerous calls."""
import re
import subprocess

from tests.harness.paths import BUILD, ROOT
from tests.lint.sources import PRODUCT

# object:symbol, as regular expressions -> why it may change while the program runs
MUTABLE = {
    r'daemon/log\.o:log_state': 'where lines go, and how many were dropped: no caller has it',
}
# Sections of variables.  .data.rel.ro holds constant tables with pointers in them.
WRITABLE = re.compile(r'\.(data|bss|tdata|tbss)(?!\.rel\.ro)\b')


def objects():
    return sorted(o for f in PRODUCT for o in (BUILD / 'obj' / f).rglob('*.o'))


def variables(path):
    """Names of the object's variables that can be written."""
    out = subprocess.run(['objdump', '-t', path], check=True, capture_output=True, text=True)
    for line in out.stdout.splitlines():
        m = re.match(r'\S+ .{7} (\S+)\t\S+\s+(?:\.hidden )?(.*)', line)
        if m and WRITABLE.match(m.group(1)) and m.group(2) != m.group(1):
            yield m.group(2)


def test_there_are_no_mutable_globals():
    assert objects(), 'nothing was built'
    found = [f'{o.relative_to(BUILD / "obj")}:{v}' for o in objects() for v in variables(o)
             if not v.startswith(('__asan', '__ubsan', '.Lubsan', '__gcov', 'local.'))]
    wrong = [f for f in found if not any(re.fullmatch(e, f) for e in MUTABLE)]
    assert not wrong, '\n'.join(wrong)
    assert [e for e in MUTABLE if not any(re.fullmatch(e, f) for f in found)] == []


def test_the_check_sees_a_mutable_global(tmp_path):
    source = tmp_path / 'x.c'
    source.write_text('static int counter; static const char *const table[] = { "a" };\n'
                      'int next(int i) { return ++counter + table[i][0]; }\n')
    subprocess.run(['gcc', '-fPIC', '-c', '-o', tmp_path / 'x.o', source], check=True)
    assert list(variables(tmp_path / 'x.o')) == ['counter']


def test_no_object_calls_functions_that_know_no_size():
    banned = {'gets', 'strcpy', 'strcat', 'sprintf', 'vsprintf', 'strtok', 'mktemp', 'tmpnam'}
    out = subprocess.run(['nm', '-A', '-u', *(o.relative_to(ROOT) for o in objects())],
                         check=True, capture_output=True, text=True, cwd=ROOT).stdout
    used = {(line.split(':')[0], line.split()[-1].removeprefix('__').removesuffix('_chk'))
            for line in out.splitlines()}
    wrong = sorted(f'{o}: {name}' for o, name in used if name in banned)
    assert used and not wrong, '\n'.join(wrong)
