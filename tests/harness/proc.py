"""Processes on this machine, and what a test may ask of any machine.

`Host` (here) and `Guest` (guest.py) offer the same: run, spawn, read, write, exists, path,
port, close.  What is written against one runs on the other; servers.py is.
"""
import collections
import fcntl
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

from tests.harness.wait import Stopwatch, wait_until

Result = collections.namedtuple('Result', 'rc out')


class CommandFailed(AssertionError):
    """A command that had to succeed did not; shows its output."""

    def __init__(self, argv, rc, out):
        super().__init__(f"{' '.join(map(str, argv))}: status {rc}\n{out[-8000:]}")
        self.rc, self.out = rc, out


class Machine:
    """What Host and Guest have in common.  `path` is a directory for a test's files."""

    path: pathlib.Path

    def run(self, argv, timeout=30, check=True, **how):
        """Run ARGV to its end: Result(rc, out).  A status other than 0 fails, unless
        CHECK is false; so does taking longer than TIMEOUT seconds.  HOW as in spawn."""
        p = self.spawn(argv, **how)
        try:
            rc = p.wait(timeout)
        except AssertionError:
            p.kill(signal.SIGKILL, group=True)
            raise
        if check and rc != 0:
            raise CommandFailed(argv, rc, p.output)
        return Result(rc, p.output)

    def sh(self, script, **how):
        """Run a shell script; it stops at the first error."""
        return self.run(['sh', '-ec', script], **how)

    def proc_status(self, pid):
        """/proc/PID/status as a dict of strings; numbers of kB lose their unit."""
        lines = (line.split(':', 1) for line in self.read(f'/proc/{pid}/status').splitlines())
        return {k: v.strip().removesuffix(' kB') for k, v in lines}

    def proc_fds(self, pid):
        """The numbers of the open file descriptors of PID."""
        return sorted(int(n) for n in self.list(f'/proc/{pid}/fd'))

    def stats(self):
        """/proc/PID/stat of every process and thread group."""
        found = []
        for name in self.list('/proc'):
            if name.isdigit():
                try:
                    found.append(self.read(f'/proc/{name}/stat'))
                except OSError:
                    pass                        # it has ended since
        return found

    def processes(self):
        """{pid: (name, state, parent's pid)} of every process and thread group."""
        found = {}
        for stat in self.stats():
            pid, rest = stat.split(' (', 1)
            comm, rest = rest.rsplit(') ', 1)
            state, parent = rest.split()[:2]
            found[int(pid)] = (comm, state, int(parent))
        return found

    def children(self, pid):
        """{pid: (name, state)} of PID's children, and of its spawner's; a zombie's state is Z.
        Not those that nbdd has from its start to its end, `programs`, `keeper` and `spawner`:
        they are none of what is under way."""
        all_of_them = self.processes()
        keepers = {p for p, v in all_of_them.items() if v[0] == 'keeper' and v[2] == pid}
        spawners = {p for p, v in all_of_them.items() if v[0] == 'spawner' and v[2] in keepers}
        return {p: v[:2] for p, v in all_of_them.items() if v[2] in {pid, *spawners} and
                v[0] not in ('programs', 'keeper', 'spawner')}

    def in_d_state(self):
        """The names of the processes that wait without being interruptible."""
        return sorted(name for name, state, _ in self.processes().values() if state == 'D')

    def listening(self, port=None, unix=None):
        """Does a socket listen on the TCP port, or on the path?  Disturbs no server."""
        if unix is not None:
            # __so_acceptcon is 1 << 16: Documentation/filesystems/proc of /proc/net/unix
            return any(f[-1] == str(unix) and int(f[3], 16) & 0x10000
                       for f in map(str.split, self.read('/proc/net/unix').splitlines()[1:]))
        for table in ('/proc/net/tcp', '/proc/net/tcp6'):
            try:
                lines = self.read(table).splitlines()[1:]
            except OSError:
                continue                        # a kernel without IPv6
            if any(f[1].endswith(f':{port:04X}') and f[3] == '0A' for f in map(str.split, lines)):
                return True
        return False


class Process:
    """A process that a Host has started.  `rc`: None while it runs, -SIGNAL if killed."""

    def __init__(self, popen, argv, output_file):
        self.popen, self.argv, self.pid = popen, [str(a) for a in argv], popen.pid
        self.output_file = output_file

    @property
    def output(self):
        """What it has written to stdout and stderr so far."""
        return pathlib.Path(self.output_file).read_text(errors='replace')

    @property
    def rc(self):
        return self.popen.poll()

    def kill(self, sig=signal.SIGTERM, group=False):
        """Send it, or its process group, SIG; nothing happens when it has ended."""
        try:
            os.killpg(self.pid, sig) if group else self.popen.send_signal(sig)
        except ProcessLookupError:
            pass

    def wait(self, timeout=10):
        """Its exit status; fails after TIMEOUT seconds (pace.py), showing the output."""
        watch = Stopwatch()
        while True:
            try:
                return self.popen.wait(max(0, timeout - watch.quiet()))
            except subprocess.TimeoutExpired:
                if watch.quiet() >= timeout:
                    raise AssertionError(
                        f"{' '.join(self.argv)}: still runs after {timeout} s\n"
                        f'{self.output[-8000:]}') from None


class Host(Machine):
    """This machine.  `close` ends what was started and fails when something had been left
    behind: a process that outlived its parent, a descriptor of ours."""

    def __init__(self, path=None):
        self.own_path = path is None
        self.path = pathlib.Path(path or tempfile.mkdtemp(prefix='nbdd-test.', dir='/tmp'))
        self.started, self.locks, self.count = [], [], 0
        self.fds = self.open_files()

    @staticmethod
    def open_files():
        found = set()
        for n in os.listdir('/proc/self/fd'):
            try:
                found.add((n, os.readlink(f'/proc/self/fd/{n}')))
            except OSError:
                pass                            # the listing's own
        return found

    def spawn(self, argv, env=None, cwd=None, **more):
        """Start ARGV in its own session, stdin empty, output captured; ENV adds to the
        environment.  MORE goes to subprocess.Popen."""
        self.count += 1
        name = os.path.basename(str(argv[0]))
        output = self.path / f'{self.count}.{name}.out'
        with open(output, 'wb') as out:
            popen = subprocess.Popen(
                [str(a) for a in argv], stdin=more.pop('stdin', subprocess.DEVNULL),
                stdout=more.pop('stdout', out), stderr=more.pop('stderr', out),
                cwd=cwd, env={**os.environ, **{k: str(v) for k, v in (env or {}).items()}},
                start_new_session=True, **more)
        p = Process(popen, argv, output)
        self.started.append(p)
        return p

    def kill(self, pid, sig=signal.SIGTERM):
        """Signal a process or, negative, a process group; gone ones are no error."""
        try:
            os.kill(pid, sig)
        except ProcessLookupError:
            pass

    def read(self, path):
        return pathlib.Path(path).read_text(errors='replace')

    def write(self, path, text):
        pathlib.Path(path).write_text(text)

    def unlink(self, path):
        pathlib.Path(path).unlink(missing_ok=True)

    def list(self, path):
        return os.listdir(path)

    def exists(self, path):
        return os.path.exists(path)

    def port(self):
        """A TCP port that nobody listens on and no other test gets while this host lives:
        below the ephemeral range, locked by a file for each port."""
        os.makedirs('/tmp/nbdd-ports', exist_ok=True)
        while True:
            number = random.randrange(20000, 32000)
            lock = os.open(f'/tmp/nbdd-ports/{number}', os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                with socket.socket() as s:
                    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    s.bind(('127.0.0.1', number))
            except OSError:
                os.close(lock)
                continue
            self.locks.append(lock)
            return number

    def left_behind(self):
        """Processes of the sessions that we started, their leaders having ended."""
        now = self.processes()
        # The number of a leader that has ended may be somebody else's by now, and his session's.
        sessions = {p.pid for p in self.started if p.rc is None or p.pid not in now}
        left = []
        for pid, (name, state, _) in now.items():
            try:
                if os.getsid(pid) in sessions and pid not in sessions and state != 'Z':
                    left.append((pid, name))
            except ProcessLookupError:
                pass
        return left

    def close(self):
        for p in self.started:
            p.kill(signal.SIGTERM)
        deadline = time.monotonic() + 5
        for p in self.started:
            try:
                p.wait(max(0.01, deadline - time.monotonic()))
            except AssertionError:
                p.kill(signal.SIGKILL)
                p.wait()
        for lock in self.locks:
            os.close(lock)
        self.locks = []
        try:
            wait_until(lambda: not self.left_behind(), timeout=3)
        except AssertionError:
            left = self.left_behind()
            for pid, _ in left:
                os.kill(pid, signal.SIGKILL)
            raise AssertionError(f'processes were left behind: {left}') from None
        finally:
            if self.own_path:
                shutil.rmtree(self.path, ignore_errors=True)
        if {t.name for t in threading.enumerate()} <= {'MainThread', 'pace'}:
            leaked = {f for f in self.open_files() - self.fds if f[1].startswith('socket:')}
            assert not leaked, f'the test left sockets open: {leaked}'

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
