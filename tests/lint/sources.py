"""The C sources of the project, as the lint tests see them."""
import re
import subprocess

from tests.harness.paths import ROOT

PRODUCT = ('lib', 'netlink', 'conf', 'daemon')


def files(*patterns):
    """Paths below the root, sorted, of what git knows or would add."""
    # A clone may belong to somebody else than who tests it.
    names = subprocess.run(['git', '-c', 'safe.directory=*', 'ls-files', '-co',
                            '--exclude-standard', '--', *patterns],
                           cwd=ROOT, check=True, capture_output=True, text=True).stdout
    return [n for n in sorted(set(names.splitlines())) if (ROOT / n).is_file()]


def c_files(*folders):
    """C sources and headers."""
    return [n for n in files(*folders) if n.endswith(('.c', '.h'))]


def text(name):
    return (ROOT / name).read_text()


def includes(name):
    """The arguments of its #include "…" lines."""
    return re.findall(r'^\s*#\s*include\s+"([^"]+)"', text(name), re.M)


def functions(name):
    """(name, first line, number of lines) of each function: by the house style its braces
    stand alone in the first column, and its head is what precedes, up to a blank line."""
    lines = text(name).splitlines()
    start = None
    for i, line in enumerate(lines):
        if line == '{':
            start = i
        elif line == '}' and start is not None:
            head = start
            while head and lines[head - 1].strip() and not lines[head - 1].startswith(
                    ('}', '/*', ' *', '#')):
                head -= 1
            called = re.search(r'(\w+)\(', ' '.join(lines[head:start]))
            yield called.group(1) if called else '?', head + 1, i - head + 1
            start = None
