"""Real NBD servers for tests, on this machine or in a guest.

    server = Nbdkit(machine, ['memory', '64M'])     # on a Unix socket
    server = QemuNbd(machine, image, tcp=True)      # on a TCP port of its own
    with server: … server.uri … server.kill() … server.restart(plugin=[...])

MACHINE is a Host or a Guest.  `start` returns when the server listens.  After `kill` the
same object can be started again on the same address, with other properties.
"""
import signal
import urllib.parse

from tests.harness.paths import BUILD
from tests.harness.wait import wait_until


class Server:
    """A server on one address.  `process` is what runs, `port` or `socket` where."""

    def __init__(self, machine, tcp=False, port=None, socket=None, export='', options=()):
        self.machine, self.export, self.options = machine, export, list(options)
        self.process = None
        self.port = port or (machine.port() if tcp else None)
        self.socket = None
        if not self.port:
            number = machine.serial = getattr(machine, 'serial', 0) + 1
            self.socket = str(socket or f'{machine.path}/nbd{number}.sock')

    def argv(self):
        """The command line; `address` and `options` are its concern, too."""
        raise NotImplementedError

    @property
    def uri(self):
        name = urllib.parse.quote(self.export)
        if self.socket:
            return f'nbd+unix:///{name}?socket={self.socket}'
        return f'nbd://127.0.0.1:{self.port}/{name}'

    @property
    def pid(self):
        return self.process.pid

    def start(self, timeout=20):
        """Start it and return when it listens; one that runs is left alone: another would find
        its address taken, but might end only after its listening had been seen."""
        if self.process and self.process.rc is None:
            return self
        self.process = self.launch()

        def ready():
            if self.process.rc is not None:
                raise RuntimeError(f'{self.process.argv}: ended with {self.process.rc}\n'
                                   f'{self.process.output}')
            return self.machine.listening(port=self.port, unix=self.socket)
        wait_until(ready, timeout, f'{self.process.argv[0]} to listen')
        return self

    def launch(self):
        return self.machine.spawn(self.argv())

    def kill(self, sig=signal.SIGKILL, timeout=10):
        """End it by SIG and return when it is gone."""
        if self.process and self.process.rc is None:
            self.process.kill(sig)
            if sig != signal.SIGKILL:
                self.process.kill(signal.SIGCONT)
            self.process.wait(timeout)
        if self.socket and sig == signal.SIGKILL:
            self.unlink()

    def unlink(self):
        self.machine.unlink(self.socket)

    def stop(self):
        """Let it hang: connections stay open and nothing is answered."""
        self.process.kill(signal.SIGSTOP)

    def cont(self):
        self.process.kill(signal.SIGCONT)

    def restart(self, **changes):
        """Kill -9 and start on the same address; CHANGES replace attributes before."""
        self.kill()
        for name, value in changes.items():
            assert hasattr(self, name), name
            setattr(self, name, value)
        return self.start()

    def close(self):
        if self.process and self.process.rc is None:
            self.process.kill(signal.SIGCONT)
            self.process.kill(signal.SIGTERM)
            try:
                self.process.wait(3)
            except AssertionError:
                self.kill()
        if self.socket:
            self.unlink()

    def __enter__(self):
        return self if self.process else self.start()

    def __exit__(self, *_):
        self.close()


class Nbdkit(Server):
    """nbdkit: PLUGIN is the plugin and its arguments, OPTIONS what stands before it (such
    as '-r' or '--filter=delay').  `memory` forgets its contents when killed, `file` not.
    EXPORT is for the URI only: which exports there are, the plugin decides."""

    def __init__(self, machine, plugin=('memory', '64M'), **address):
        self.plugin = list(plugin)
        super().__init__(machine, **address)

    def argv(self):
        at = ['-U', self.socket] if self.socket else ['-i', '127.0.0.1', '-p', str(self.port)]
        return ['nbdkit', '-f', *at, *self.options, *self.plugin]


class QemuNbd(Server):
    """qemu-nbd serving IMAGE (a path) in FORMAT to up to CLIENTS connections."""

    def __init__(self, machine, image, format='raw', clients=8, **address):
        self.image, self.format, self.clients = image, format, clients
        super().__init__(machine, **address)

    def argv(self):
        at = ['-k', self.socket] if self.socket else ['-b', '127.0.0.1', '-p', str(self.port)]
        return ['qemu-nbd', '-t', '-e', str(self.clients), '-f', self.format, '-x', self.export,
                *at, *self.options, str(self.image)]


class QemuStorage(Server):
    """qemu-storage-daemon serving the raw IMAGE under each of the names EXPORTS, with one
    thread for all clients.  Until all are there it listens, but answers nobody."""

    def __init__(self, machine, image, exports, **address):
        self.image, self.exports = image, list(exports)
        super().__init__(machine, **address)

    def argv(self):
        at = f'addr.type=unix,addr.path={self.socket}' if self.socket else \
            f'addr.type=inet,addr.host=127.0.0.1,addr.port={self.port}'
        return ['qemu-storage-daemon', f'--blockdev=driver=file,node-name=disk,locking=off,'
                f'filename={self.image}', f'--nbd-server={at},max-connections=0', *self.options,
                *(f'--export=type=nbd,id={name},node-name=disk,name={name},writable=on'
                  for name in self.exports)]


class Daemon:
    """A process group that has left the one who started it, known by its pid file."""

    def __init__(self, machine, argv, pid_file):
        self.machine, self.argv = machine, argv
        self.output = machine.run(argv).out
        self.pid = int(wait_until(lambda: machine.read(pid_file), what=pid_file))

    @property
    def rc(self):
        """None while it is alive, then 0: nobody has its status."""
        try:
            alive = self.machine.read(f'/proc/{self.pid}/stat').split(')')[1].split()[0] != 'Z'
        except OSError:
            alive = False
        return None if alive else 0

    def kill(self, sig, group=True):
        self.machine.kill(-self.pid, sig)

    def wait(self, timeout=10):
        wait_until(lambda: self.rc is not None, timeout, f'{self.argv[0]} to end')
        return 0


class NbdServer(Server):
    """nbd-server with EXPORTS: {name: {'exportname': PATH, other keys of its section}}."""

    def __init__(self, machine, exports, generic=None, **address):
        self.exports, self.generic = exports, generic or {}
        super().__init__(machine, **address)
        self.export = self.export or next(iter(exports), '')
        # It listens on TCP even when a Unix socket is all that is wanted.
        self.tcp_port = self.port or machine.port()
        self.config = f'{machine.path}/nbd-server.{self.tcp_port}.conf'

    def argv(self):
        return ['nbd-server', '-C', self.config, '-p', f'{self.config}.pid', *self.options]

    def launch(self):
        generic = {'allowlist': 'true', 'listenaddr': '127.0.0.1', 'port': self.tcp_port,
                   **({'unixsock': self.socket} if self.socket else {}), **self.generic}
        text = ''.join(f'[{s}]\n' + ''.join(f'\t{k} = {v}\n' for k, v in keys.items())
                       for s, keys in {'generic': generic, **self.exports}.items())
        self.machine.write(self.config, text)
        self.machine.unlink(f'{self.config}.pid')    # of one that was killed
        # With its option to stay in the foreground it serves one client only.
        return Daemon(self.machine, self.argv(), f'{self.config}.pid')


class TlsFront(Server):
    """TLS before SERVER, which has none, and EVENTS while data flows: see tlsfront.c.
    CREDENTIALS are 'psk:FILE' or 'x509:DIRECTORY'."""

    def __init__(self, machine, server, credentials, priority='NORMAL:+ECDHE-PSK:+PSK',
                 events=(), **address):
        self.server, self.credentials, self.priority = server, credentials, priority
        self.events = list(events)
        super().__init__(machine, **address)

    def argv(self):
        at, upstream = (f'unix:{s.socket}' if s.socket else f'tcp:{s.port}'
                        for s in (self, self.server))
        return [BUILD / 'tests' / 'tlsfront', at, upstream, self.credentials, self.priority,
                *self.events]
