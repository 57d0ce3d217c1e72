"""Run the readers on files."""
import subprocess
from types import SimpleNamespace

from tests.harness.paths import BUILD


def check(directory, conf=None, tab=None, one=None):
    """Write the texts (str or bytes) to files and read them together (CONF, TAB) or ONE, a
    path, alone.  Gives .problems, `c:3: error: …` with the file's path replaced by c or t,
    and .devices, {name: {key: value}}, and .status, of the program."""
    paths = {}
    for name, text in (('c', conf), ('t', tab)):
        paths[name] = directory / ('nbdd.conf' if name == 'c' else 'nbdtab')
        if text is not None:
            paths[name].write_bytes(text if isinstance(text, bytes) else text.encode())
    return run(['--one', one] if one else [paths['c'], paths['t']], paths)


def check_boot(directory, line):
    """As check, of a kernel's command line; .root is dracut's part."""
    path = directory / 'cmdline'
    path.write_text(line + '\n')
    return run(['--boot', path], {'cmdline': path})


def run(arguments, paths):
    r = subprocess.run([BUILD / 'tests' / 'confcli', *arguments], capture_output=True,
                       timeout=30)
    assert r.returncode in (0, 1) and not r.stderr, r.stderr.decode(errors='replace')
    result = SimpleNamespace(problems=[], devices={}, status=r.returncode, root=None)
    for line in r.stdout.decode().splitlines():
        if line.startswith('device '):
            _, name, *pairs = line.split(' ')
            result.devices[name] = dict(p.split('=', 1) for p in pairs if '=' in p)
        elif line.startswith('root '):
            result.root = line
        else:
            for name, path in paths.items():
                line = line.replace(str(path), name)
            result.problems.append(line)
    return result
