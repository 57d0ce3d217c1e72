"""As much of a service manager as nbdd knows: starts a command again whenever it ends, reads
its notifications, and keeps its descriptors (sd_notify(3): READY, MAINPID, FDSTORE,
FDSTOREREMOVE, and that what hangs up is dropped).

    python3 init.py [--listen=PATH] DIRECTORY COMMAND...

With PATH it listens there, as for a unit with a socket, and passes that on, too.
Says on standard output what happens: `init: started PID with N descriptors`, `init: ready
PID`, `init: main PID`, `init: ended PID STATUS`.  SIGTERM ends the command and then itself,
with its status.
"""
import os
import select
import signal
import socket
import struct
import sys

FIRST_FD = 3
HUNG_UP = select.EPOLLHUP | select.EPOLLERR


class Init:
    def __init__(self, directory, command, listen=None):
        self.command, self.store, self.ending, self.status = command, [], False, 0
        self.sockets = [('control', self.listen_on(listen))] if listen else []
        self.path = f'{directory}/notify'
        if os.path.exists(self.path):
            os.unlink(self.path)
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self.sock.bind(self.path)
        self.main = None
        self.foreign = False            # main is no child of ours (MAINPID)

    @staticmethod
    def listen_on(path):
        """As systemd does: whoever listens there until now loses the path."""
        if os.path.exists(path):
            os.unlink(path)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind(path)
        os.chmod(path, 0o666)
        sock.listen(16)
        return sock.detach()

    @staticmethod
    def say(*words):
        print('init:', *words, flush=True)

    def start(self):
        self.drop_dead()
        pid = os.fork()
        if pid == 0:
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            self.run()
        self.main, self.foreign = pid, False
        self.say('started', pid, 'with', len(self.store), 'descriptors')

    def run(self):
        env = {**os.environ, 'NOTIFY_SOCKET': self.path}
        passed = self.sockets + self.store
        high = [os.dup2(fd, 500 + i) for i, (_, fd) in enumerate(passed)]
        for i, fd in enumerate(high):
            os.dup2(fd, FIRST_FD + i)
        if high:
            env.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(high)),
                       LISTEN_FDNAMES=':'.join(name for name, _ in passed))
        os.closerange(FIRST_FD + len(high), 1000)
        os.execve(self.command[0], self.command, env)

    def drop_dead(self):
        """systemd watches what it stores, and closes what has hung up."""
        poll = select.poll()
        for _, fd in self.store:
            poll.register(fd, 0)
        dead = {fd for fd, events in poll.poll(0) if events & HUNG_UP}
        self.drop(lambda name, fd: fd in dead)

    def drop(self, what):
        gone = [item for item in self.store if what(*item)]
        self.store = [item for item in self.store if item not in gone]
        for _, fd in gone:
            os.close(fd)

    def message(self):
        data, ancillary, _, _ = self.sock.recvmsg(4096, 4096)
        fds, pid = [], 0
        for _, kind, payload in ancillary:
            if kind == socket.SCM_RIGHTS:
                fds += struct.unpack(f'{len(payload) // 4}i', payload)
            elif kind == socket.SCM_CREDENTIALS:
                pid = struct.unpack('iii', payload)[0]
        fields = dict(line.split('=', 1) for line in data.decode().splitlines())
        if pid == self.main:
            self.obey(fields, fds)
        else:
            self.say('refused', pid, sorted(fields))
            for fd in fds:
                os.close(fd)

    def obey(self, fields, fds):
        name = fields.get('FDNAME', 'stored')
        if 'FDSTOREREMOVE' in fields:
            self.drop(lambda n, _: n == name)
        for fd in fds:
            # What is stored already is not stored again.
            if any(os.path.sameopenfile(fd, other) for _, other in self.store):
                os.close(fd)
            else:
                self.store.append((name, fd))
        if 'MAINPID' in fields and int(fields['MAINPID']) != self.main:
            self.main, self.foreign = int(fields['MAINPID']), True
            self.say('main', self.main)
        if 'READY' in fields:
            self.say('ready', self.main)

    def reap(self):
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            self.say('ended', pid, os.waitstatus_to_exitcode(status))
            if pid == self.main:
                self.main_ended(os.waitstatus_to_exitcode(status))
        if self.foreign and not os.path.exists(f'/proc/{self.main}'):
            self.main_ended(0)

    def main_ended(self, status):
        if self.ending:
            sys.exit(status)
        self.start()

    def loop(self):
        signals = [signal.SIGCHLD, signal.SIGTERM]
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        wake, far = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(far)
        for s in signals:
            signal.signal(s, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
        self.start()
        while True:
            # A main process that is no child is looked at from time to time.
            ready = select.select([self.sock, wake], [], [], 0.1 if self.foreign else None)[0]
            if self.sock in ready:
                self.message()
                continue                # all that it said before it ended counts
            came = os.read(wake, 100) if wake in ready else b''
            if signal.SIGTERM in came:
                self.ending = True
                os.kill(self.main, signal.SIGTERM)
            self.reap()


if __name__ == '__main__':
    arguments = sys.argv[1:]
    path = arguments.pop(0).partition('=')[2] if arguments[0].startswith('--listen=') else None
    Init(arguments[0], arguments[1:], path).loop()
