"""A Linux kernel of a test's own: a User-Mode Linux guest, up in about a second.

    with Guest(nbds_max=64) as g:
        g.run(['nbdctl', …]).out            # runs to its end, must succeed
        p = g.spawn(['nbdd', …])            # p.pid, p.rc, p.output, p.kill(SIG), p.wait()
        g.read('/sys/block/nbd0/size'); g.write(path, text); g.list('/proc')
        g.python('tests.harness.guest_lib:function', name=value)
        g.dmesg(); g.in_d_state(); g.proc_status(p.pid)['VmRSS']

The guest's root is this machine's `/`, read-only; /run, /tmp, /mnt, /dev are its own; only
`g.path` is writable for both, under the same name.  Unix sockets there do not connect the
two.  It has one CPU and its own network, with `lo` up.  PID 1 is tests/harness/agent.c.
Starting Python in it takes seconds: `g.python` starts one, once.

Pytest fixtures for it are in tests/conftest.py: `guest`, `boot`.
"""
import errno
import fcntl
import functools
import json
import os
import pathlib
import re
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

from tests.harness.paths import AGENT, HARNESS, ROOT, UML_SUSPEND
from tests.harness.proc import Machine
from tests.harness.wait import Stopwatch, wait_until

MODULES = '/usr/lib/uml/modules'
# What kTLS needs besides `tls` is not in its list of dependencies: the ciphers.
ALWAYS = ('ctr', 'gcm', 'ghash-generic', 'seqiv', 'chacha_generic', 'poly1305_generic',
          'chacha20poly1305', 'tls', 'nbd')
BOOT_TIMEOUT = 60
# A terminal loses what is more than 4 KiB at once; longer requests go through a file.
LINE_MAX = 3000


class GuestDied(Exception):
    """The guest ended or stopped answering; shows its console."""


class GuestProcess:
    """A process in the guest, leader of its own session.  As proc.Process."""

    def __init__(self, guest, pid, argv, output_file):
        self.guest, self.pid, self.argv = guest, pid, argv
        self.output_file = output_file
        self.status = None

    @property
    def output(self):
        return pathlib.Path(self.output_file).read_text(errors='replace')

    @property
    def rc(self):
        self.guest.pump(0)
        return None if self.status is None else os.waitstatus_to_exitcode(self.status)

    def kill(self, sig=signal.SIGTERM, group=False):
        self.guest.kill(-self.pid if group else self.pid, sig)

    def wait(self, timeout=10):
        watch = Stopwatch()
        while self.rc is None:
            left = timeout - watch.quiet()
            if left <= 0:
                raise AssertionError(
                    f"{' '.join(self.argv)}: still runs in the guest after {timeout} s"
                    f'{self.guest.why_blocked(self.pid)}\n{self.output[-8000:]}')
            self.guest.pump(min(left, 0.5))
        return self.rc


@functools.cache
def tied_to_us():
    """What to put before a command so that it, and every process it makes, ends with us,
    even if we are killed.  A guest is many processes; as a PID namespace they end together."""
    tied = ['setpriv', '--pdeathsig', 'KILL']
    alone = ['unshare', '--pid', '--fork', '--kill-child']
    able = subprocess.run([*alone, 'true'], stdin=subprocess.DEVNULL, capture_output=True)
    return [*tied, *alone] if able.returncode == 0 else tied


def module_list(more, parameters):
    """Lines of insmod's arguments: ALWAYS and MORE, with what they depend on, in order;
    {name: PARAMETERS}."""
    directories = sorted(pathlib.Path(MODULES).iterdir())
    assert directories, f'{MODULES}: no modules; is user-mode-linux installed?'
    base = directories[-1]
    needs = {}
    for line in (base / 'modules.dep').read_text().splitlines():
        file, _, rest = line.partition(':')
        needs[file] = rest.split()
    by_name = {pathlib.Path(f).stem.replace('_', '-'): f for f in needs}
    order = []

    def add(file):
        for other in reversed(needs[file]):
            add(other)
        if file not in order:
            order.append(file)
    for name in (*ALWAYS, *more):
        # What is not a module of this kernel is built in, or insmod's error will tell.
        if name.replace('_', '-') in by_name:
            add(by_name[name.replace('_', '-')])
    return ''.join(f'{base / f} {parameters.get(pathlib.Path(f).stem, "")}\n' for f in order)


class Slot:
    """One of the machine's places for a guest: as many as cores and one, so that parallel
    tests do not slow each other until their times mean nothing."""

    def __init__(self):
        directory = pathlib.Path('/tmp/nbdd-guests')
        directory.mkdir(exist_ok=True)
        names = [directory / str(n) for n in range((os.cpu_count() or 1) + 1)]
        self.fd = wait_until(lambda: self.take(names), timeout=900, interval=0.1,
                             what='a place for another guest')

    @staticmethod
    def take(names):
        for name in names:
            fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return fd
            except OSError:
                os.close(fd)
        return None

    def close(self):
        os.close(self.fd)


class Guest(Machine):
    """Boots at once.  MEMORY as UML's mem= wants it; NBDS_MAX and MAX_PART are parameters
    of the nbd module; MODULES are further ones, with what they depend on; one that SUSPENDS
    may be suspended."""

    def __init__(self, memory='384M', nbds_max=16, max_part=None, modules=(),
                 suspends=False):
        self.path = pathlib.Path(tempfile.mkdtemp(prefix='nbdd-guest.', dir='/tmp'))
        self.lock = threading.RLock()
        self.running, self.answers, self.buffer = {}, [], b''
        self.count, self.next_port, self.worker = 0, 10809, None
        self.slot = Slot()
        parameters = f'nbds_max={nbds_max}'
        if max_part is not None:
            parameters += f' max_part={max_part}'
        self.write_module_list(modules, {'nbd': parameters})
        self.start(memory, suspends)

    # ---- life

    def write_module_list(self, more, parameters):
        (self.path / 'modules').write_text(module_list(more, parameters))

    def start(self, memory, suspends):
        size = int(memory[:-1]) << {'M': 20, 'G': 30}[memory[-1]]
        shm = os.statvfs('/dev/shm')
        fits = shm.f_bavail * shm.f_frsize > 2 * size
        more = {'LD_PRELOAD': str(UML_SUSPEND),
                'UML_SUSPEND': f'{self.path}/suspend'} if suspends else {}
        self.sock, far = socket.socketpair()
        self.worker_sock, worker_far = socket.socketpair()
        a, b = far.fileno(), worker_far.fileno()
        self.console_file = self.path / 'console'
        with open(self.console_file, 'wb') as console:
            self.uml = subprocess.Popen(
                [*tied_to_us(), 'linux.uml', f'mem={memory}',
                 'rootfstype=hostfs', 'rootflags=/', 'ro', f'init={AGENT}',
                 'con=null', 'con0=null,fd:1', f'ssl0=fd:{a},fd:{a}', f'ssl1=fd:{b},fd:{b}',
                 'panic=-1', 'quiet', 'loglevel=3',
                 f'uml_dir={self.path}', 'umid=uml', f'SHARE={self.path}',
                 f'TREE={ROOT}'],
                stdin=subprocess.DEVNULL, stdout=console, stderr=console, pass_fds=(a, b),
                env={**os.environ, 'TMPDIR': '/dev/shm' if fits else '/tmp', **more},
                start_new_session=True)
        far.close()
        worker_far.close()
        try:
            self.take_answer(BOOT_TIMEOUT, 'boot')
            self.run(['busybox', 'ip', 'link', 'set', 'lo', 'up'])
        except BaseException:
            self.close()
            raise

    def close(self):
        """End the guest; its files go, too."""
        if 'unshare' in tied_to_us():
            self.uml.kill()                     # and the namespace with it
        else:
            self.uml.terminate()
        try:
            self.uml.wait(5)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(self.uml.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.uml.wait()
        self.sock.close()
        self.worker_sock.close()
        self.slot.close()
        shutil.rmtree(self.path, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    # ---- talking to the agent

    def died(self, what):
        return GuestDied(f'{what}; the console says:\n{self.console()[-6000:]}')

    def console(self):
        """The kernel's and PID 1's messages that reached the console."""
        return self.console_file.read_text(errors='replace')

    def pump(self, timeout):
        """Take in what the agent has sent, waiting up to TIMEOUT seconds for the first."""
        with self.lock:
            if self.take_messages() or not select.select([self.sock], [], [], timeout)[0]:
                return
            data = self.sock.recv(1 << 16)
            if not data:
                raise self.died('the guest has ended')
            self.buffer += data
            self.take_messages()

    def take_messages(self):
        """Handle the messages in the buffer up to the first answer: the end of a process
        may stand right behind the answer that will make it known.  Were there any?"""
        found = False
        while len(self.buffer) >= 4:
            end = 4 + struct.unpack('>I', self.buffer[:4])[0]
            if len(self.buffer) < end:
                break
            found = True
            message, self.buffer = self.buffer[4:end], self.buffer[end:]
            word, rest = message.split(b'\0', 1)
            if word != b'exit':
                self.answers.append((word, rest))
                break
            pid, status = rest.split(b'\0')[:2]
            if int(pid) in self.running:
                self.running.pop(int(pid)).status = int(status)
        return found

    def take_answer(self, timeout, what):
        watch = Stopwatch()
        while not self.answers:
            if watch.quiet() >= timeout:
                raise self.died(f'no answer from the guest to `{what}` in {timeout} s')
            self.pump(0.2)
        word, rest = self.answers.pop(0)
        if word == b'error':
            number = int(rest.split(b'\0')[0])
            raise OSError(number, f'{os.strerror(number)} (guest: {what})')
        return rest

    def request(self, *fields, timeout=30):
        body = b''.join(os.fsencode(str(f)) + b'\0' for f in fields)
        with self.lock:
            if len(body) > LINE_MAX:
                (self.path / 'request').write_bytes(body)
                body = b'from\0' + os.fsencode(self.path / 'request') + b'\0'
            self.sock.sendall(struct.pack('>I', len(body)) + body)
            return self.take_answer(timeout, ' '.join(map(str, fields[:2])))

    # ---- what a machine does

    def spawn(self, argv, env=None, cwd='/'):
        """Start ARGV, stdin empty, output captured; ENV adds to the environment."""
        self.count += 1
        argv = [str(a) for a in argv]
        output = self.path / f'{self.count}.{os.path.basename(argv[0])}.out'
        output.touch()
        settings = [f'{k}={v}' for k, v in (env or {}).items()]
        with self.lock:         # or its exit could be read before it is known
            pid = int(self.request('spawn', cwd, output, len(settings), *settings,
                                   *argv).split(b'\0')[0])
            p = self.running[pid] = GuestProcess(self, pid, argv, output)
        return p

    def kill(self, pid, sig=signal.SIGTERM):
        """Signal a process or, negative, a process group; gone ones are no error."""
        try:
            self.request('kill', pid, int(sig))
        except OSError as e:
            if e.errno != errno.ESRCH:
                raise

    def read(self, path):
        """A file's text; up to 1 MiB; for /proc and /sys, tmpfs and the like."""
        return self.request('read', path).decode(errors='replace')

    def write(self, path, text):
        self.request('write', path, text)

    def unlink(self, path):
        """Remove the file, if it is there."""
        try:
            self.request('unlink', path)
        except FileNotFoundError:
            pass

    def list(self, path):
        names = self.request('list', path).split(b'\0')
        return sorted(os.fsdecode(n) for n in names if n not in (b'', b'.', b'..'))

    def exists(self, path):
        try:
            self.list(os.path.dirname(path))
        except OSError:
            return False
        return os.path.basename(path) in self.list(os.path.dirname(path))

    def stats(self):
        """/proc/PID/stat of every process."""
        return [os.fsdecode(t) for t in self.request('ps').split(b'\0') if t]

    def call(self, socket, method, parameters):
        """A call of a Varlink service: its reply.  No process is started for it."""
        message = json.dumps({'method': method, 'parameters': parameters})
        return json.loads(self.request('call', socket, message).rstrip(b'\0'))

    def port(self):
        """A TCP port that no server of this guest has yet."""
        self.next_port += 1
        return self.next_port

    def suspend(self, seconds):
        """Suspend the machine to memory for so long.  Processes that wait for a server in
        the guest, which is frozen as they are, would be in the way."""
        word = self.path / 'suspend'
        word.touch()
        try:
            p = self.spawn(['sh', '-c', 'echo mem >/sys/power/state'])
            wait_until(lambda: not word.exists() or p.rc is not None, 30, 'the machine to sleep')
            assert p.rc is None, p.output
            time.sleep(seconds)                 # what it is to sleep
        finally:
            for file in (word, self.path / 'suspend.asleep'):
                file.unlink(missing_ok=True)
        assert p.wait(30) == 0, p.output

    def dmesg(self):
        """The kernel's log."""
        return self.run(['busybox', 'dmesg']).out

    def block(self, index, attribute):
        """/sys/block/nbdINDEX/ATTRIBUTE, without the newline."""
        return self.read(f'/sys/block/nbd{index}/{attribute}').strip()

    def why_blocked(self, pid):
        try:
            state = self.proc_status(pid)['State']
            stack = self.read(f'/proc/{pid}/stack') if state.startswith('D') else ''
            return f', state {state}\n{stack}'
        except (OSError, KeyError):
            return ''

    # ---- Python inside

    def python(self, function, timeout=60, **arguments):
        """Call FUNCTION, 'package.module:name', in the guest's one Python process and return
        what it returns; arguments and result go as JSON.  Its exceptions come back as
        RuntimeError with the traceback."""
        if self.worker is None:
            self.worker = self.spawn(['/usr/bin/python3', '-B', '-E', '-s',
                                      HARNESS / 'guest_worker.py', '/dev/ttyS1'],
                                     cwd=str(ROOT))
            self.worker_file = self.worker_sock.makefile('rw', encoding='utf-8', newline='\n')
            self.worker_answer(30)
        request = json.dumps([function, arguments])
        if len(request) > LINE_MAX:
            (self.path / 'call').write_text(request)
            request = json.dumps(str(self.path / 'call'))
        self.worker_file.write(request + '\n')
        self.worker_file.flush()
        answer = self.worker_answer(timeout)
        if 'error' in answer:
            raise RuntimeError(f'{function} in the guest:\n{answer["error"]}')
        return answer['result']

    def worker_answer(self, timeout):
        watch = Stopwatch()
        while not select.select([self.worker_sock], [], [], 0.1)[0]:
            if self.worker.rc is not None or watch.quiet() > timeout:
                raise AssertionError(f"no answer from the guest's Python in {timeout} s\n"
                                     f'{self.worker.output}')
        return json.loads(self.worker_file.readline())
