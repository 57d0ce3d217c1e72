"""Files and functions stay of a size that can be read; exceptions stand here, with why."""
from tests.lint.sources import PRODUCT, c_files, functions, text

# The house style says 500, 120, 60 and 90; what is a little over is not worth a fight.
FILE_MAX, HEADER_MAX, FUNCTION_MAX, WIDTH = 520, 150, 60, 100

# path, or path:function -> why it may be longer
EXCEPTIONS = {
    'lib/session/session.h': 'the one struct of a connection, each member with its meaning',
}


def test_files_and_headers_are_short():
    long = []
    for name in c_files(*PRODUCT, 'tests'):
        n = text(name).count('\n')
        if n > (HEADER_MAX if name.endswith('.h') else FILE_MAX) and name not in EXCEPTIONS:
            long.append(f'{name}: {n} lines')
    assert not long, '\n'.join(long)


def test_functions_are_short():
    long = [f'{name}:{line}: {function}: {n} lines' for name in c_files(*PRODUCT, 'tests')
            for function, line, n in functions(name)
            if n > FUNCTION_MAX and f'{name}:{function}' not in EXCEPTIONS]
    assert not long, '\n'.join(long)


def test_most_functions_are_short():
    sizes = sorted(n for name in c_files(*PRODUCT) for _, _, n in functions(name))
    assert len(sizes) > 20, 'the functions were not found'
    assert sizes[len(sizes) * 9 // 10] <= 35, 'a tenth of the functions is over 35 lines'


def test_lines_are_narrow_without_trailing_blanks():
    wrong = []
    for name in c_files(*PRODUCT, 'tests'):
        for i, line in enumerate(text(name).splitlines(), 1):
            if len(line.expandtabs(8)) > WIDTH:
                wrong.append(f'{name}:{i}: {len(line.expandtabs(8))} columns')
            if line != line.rstrip():
                wrong.append(f'{name}:{i}: ends with a blank')
    assert not wrong, '\n'.join(wrong)


def test_exceptions_are_still_needed():
    known = set(c_files(*PRODUCT, 'tests'))
    assert [e for e in EXCEPTIONS if e.split(':')[0] not in known] == []
