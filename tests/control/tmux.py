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


class Window:
    """ARGV in a tmux window of MACHINE, a Host or Guest, for as long as the test wants."""

    def __init__(self, machine, argv, columns, lines=24):
        self.machine, self.server = machine, f'nbdd-window-{os.getpid()}-{next(NUMBERS)}'
        self.tmux('new-session', '-d', '-x', columns, '-y', lines, '-e', 'TERM=screen-256color',
                  f'{shlex.join(map(str, argv))}; echo "status $?"; exec sleep 600')
        self.tmux('set-option', '-g', 'window-size', 'manual')

    def tmux(self, *args):
        return self.machine.run(['tmux', '-L', self.server, '-f', '/dev/null', *map(str, args)],
                                env={'LC_ALL': 'C.UTF-8'}).out

    def lines(self):
        """What stands in it now, without blanks at the ends of lines."""
        return [line.rstrip() for line in
                self.tmux('capture-pane', '-p').rstrip('\n').split('\n')]

    def resize(self, columns, lines):
        self.tmux('resize-window', '-x', columns, '-y', lines)

    def type(self, keys):
        self.tmux('send-keys', keys)

    def alternate(self):
        return self.tmux('display-message', '-p', '#{alternate_on}').strip() == '1'

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.tmux('kill-server')
