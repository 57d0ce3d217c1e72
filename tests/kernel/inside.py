"""Runs in a guest: a client of the control socket that breaks the rules, and other things
that no program there does."""
import contextlib
import ctypes
import errno
import json
import os
import re
import resource
import signal
import socket
import time

from tests.control.varlink import Varlink


def ask(path, raw, half=False):
    """Send RAW (text) and return what comes: the replies until the daemon closes, or one.
    HALF: hang up in the middle."""
    with Varlink(path) as v:
        try:
            v.raw(raw.encode('latin-1'))
            if half:
                return None
            return v.receive()
        except (BrokenPipeError, ConnectionResetError):
            return 'closed'


def long_message(path, megabytes):
    """A message of so many MiB without an end."""
    with Varlink(path) as v:
        sent = 0
        try:
            for _ in range(megabytes << 4):
                v.raw(b'x' * 65536)
                sent += 65536
        except (BrokenPipeError, ConnectionResetError):
            pass
        try:
            return [sent, v.receive()]
        except (OSError, AssertionError):
            return [sent, None]


def as_nobody(path, method, parameters):
    """The reply to a call by a user who is not root."""
    os.seteuid(65534)
    try:
        with Varlink(path) as v:
            return v.call(method, parameters)
    finally:
        os.seteuid(0)


def as_root(path, method, parameters):
    """The reply to a call by root."""
    with Varlink(path) as v:
        return v.call(method, parameters)


def crowd(path, clients):
    """So many silent clients at once; a further one's answer, once they are there and once
    they have left."""
    silent = []
    for _ in range(clients):
        silent.append(Varlink(path))
    for v in silent:
        v.close()
    for _ in range(100):
        try:
            with Varlink(path) as v:
                reply = v.call('io.nbdd.Manager.Status', {})
                if reply and 'parameters' in reply and 'error' not in reply:
                    return reply
        except OSError:
            pass
        time.sleep(0.05)
    return None


def fill_the_way(uid):
    """As user UID send descriptors that nobody takes, as many as a child of nbdd can with its
    limit of 64, and hold them there; print why there are no more."""
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    ends = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        for _ in range(10):
            socket.send_fds(ends[0], [b'x'], [ends[0].fileno()] * 253)
    except OSError as e:
        print(errno.errorcode[e.errno], flush=True)
    signal.pause()


def cut_connection(pid, port, which):
    """End the WHICH-th of the connections that the server PID has on its PORT, and no other,
    as a middlebox would."""
    with open('/proc/net/tcp') as f:
        lines = [line.split() for line in f][1:]
    inodes = [line[9] for line in lines
              if line[1].endswith(f':{port:04X}') and line[3] == '01']
    fds = {}
    for name in os.listdir(f'/proc/{pid}/fd'):
        m = re.fullmatch(r'socket:\[(\d+)\]', os.readlink(f'/proc/{pid}/fd/{name}'))
        if m and m.group(1) in inodes:
            fds[int(name)] = m.group(1)
    pidfd = os.pidfd_open(pid)
    pidfd_getfd = 438
    fd = ctypes.CDLL(None, use_errno=True).syscall(pidfd_getfd, pidfd, sorted(fds)[which], 0)
    os.close(pidfd)
    if fd < 0:
        raise OSError(ctypes.get_errno(), 'pidfd_getfd')
    with socket.socket(fileno=fd) as s:
        s.shutdown(socket.SHUT_RDWR)
    return len(fds)


def in_child(run):
    """What RUN writes to a descriptor, in a process of its own, for it may be killed."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid:
        os.close(theirs)
        os.waitpid(pid, 0)
        with open(ours, encoding='ascii') as f:
            return f.read()
    try:
        run(theirs)
    except OSError as e:
        os.write(theirs, json.dumps(repr(e)).encode())
    os._exit(0)


def speak(path, messages):
    """Send MESSAGES to a socket of packets, each after the first when one was answered; what it
    answers, until it closes or kills."""
    def run(out):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
            s.settimeout(10)
            s.connect(path)
            left = list(messages)
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                while True:
                    if left:
                        s.send(left.pop(0).encode('latin-1'))
                    if not (data := s.recv(1 << 16)):
                        break
                    os.write(out, json.dumps(data.decode('latin-1')).encode() + b'\n')
    return [json.loads(line) for line in in_child(run).splitlines()]


def succeed(path, seconds=None, stopped=None, signer=None):
    """Take a handover over with so many seconds of work before TAKEN, or without an end if
    None; what the last answer is.  With STOPPED, the one that gives: that is stopped, and this
    one dies in charge, SIGNER (or itself) being named in the lock file."""
    def run(out):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
            s.connect(path)
            s.send(b'HELLO 1 1 1 0.1')
            while not (got := socket.recv_fds(s, 1 << 16, 16))[0].startswith(b'END'):
                pass
            if seconds is not None:
                end = time.monotonic() + seconds
                while time.monotonic() < end:
                    pass
                socket.send_fds(s, [b'TAKEN all'], [s.fileno()] * 3)    # nobody wants them
            answer = s.recv(1 << 16)
            if stopped:
                os.kill(stopped, signal.SIGSTOP)
                os.pwrite(got[1][0], f'{signer or os.getpid()}\n'.encode(), 0)
                socket.send_fds(s, [b'RUNNING now'], [s.fileno()] * 3)
            os.write(out, answer.split(b' ')[0])
            while not answer:           # given up: it is killed
                signal.pause()
    return in_child(run)


def find_in_memory(pid, text):
    """The flags of smaps of each of the process's mappings where TEXT is."""
    found = []
    with open(f'/proc/{pid}/smaps') as smaps, open(f'/proc/{pid}/mem', 'rb', 0) as memory:
        for line in smaps:
            m = re.match(r'([0-9a-f]+)-([0-9a-f]+) (\S+)', line)
            if m:
                start, end, rights = int(m[1], 16), int(m[2], 16), m[3]
            elif line.startswith('VmFlags:') and rights.startswith('rw'):
                try:
                    memory.seek(start)
                    data = memory.read(end - start)
                except (OSError, OverflowError):
                    continue
                if text.encode() in data:
                    found.append(line.split(':')[1].strip())
    return found
