"""Runs in a guest: an nbdd that ends in the middle of a call, and the one after it."""
import pathlib
import subprocess

from tests.control.manager import Manager


def ask(argv, directory, answers):
    """Run ARGV, which gets no answer on DIRECTORY/control to its first call; then ANSWERS, of
    each method.  Its status, what it printed on stderr, and the calls."""
    pathlib.Path(directory, 'control').unlink(missing_ok=True)
    with Manager(directory) as m:
        m.answers = {name: lambda params, a=a: a if len(m.calls) > 1 else None
                     for name, a in answers.items()}
        p = subprocess.run(argv, capture_output=True, text=True, timeout=30)
        return p.returncode, p.stderr, m.calls
