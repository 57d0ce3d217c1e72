"""A program in a tmux window of any size, and what stands in it then."""
import itertools
import os
import shlex
import subprocess

from tests.harness.wait import wait_until

NUMBERS = itertools.count()


def capture(argv, columns, lines=100, env=None):
    """Run ARGV to its end: the lines of the window, without blanks at their ends."""
    server = f'nbdd-{os.getpid()}-{next(NUMBERS)}'

    def tmux(*args):
        return subprocess.run(['tmux', '-L', server, '-f', '/dev/null', *map(str, args)],
                              capture_output=True, text=True, check=True,
                              env={**os.environ, 'LC_ALL': 'C.UTF-8', **(env or {})}).stdout
    # The window stays when the program has ended.
    command = f'{shlex.join(map(str, argv))}; printf "\\033]2;over\\007"; exec sleep 600'
    tmux('new-session', '-d', '-x', columns, '-y', lines, command)
    try:
        wait_until(lambda: tmux('display-message', '-p', '#{pane_title}').strip() == 'over', 30,
                   'the program to end')
        return [line.rstrip() for line in tmux('capture-pane', '-p').rstrip('\n').split('\n')]
    finally:
        tmux('kill-server')
