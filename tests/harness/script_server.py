"""An NBD server that can say anything: the peer for tests of odd and hostile servers.

A Script says how one connection goes.  As it stands it is a correct fixed newstyle server
with a memory export; each piece of it can be replaced.  A *piece* is what the server does
when something arrives: bytes (sent instead of the usual reply), or a callable
`piece(session, message)` returning the bytes to send, where `session.usual(message)` gives
the reply of a correct server.  tests/harness/pieces.py has the common ones (stall, hang up,
half a message, wrong fields, endless replies...), tests/harness/scripts.py named scripts.

    with ScriptServer(Script(command={Cmd.READ: pieces.doubled})) as server:
        connect_to(server.uri())
        assert server.requests()[0].flags == 0

As a process of its own, e.g. inside a guest:

    python3 -m tests.harness.script_server --listen unix:/run/s --script slow --size 2097152

Every session ends by itself after `Script.limit_seconds`, so that no client waits for ever.
"""
import json
import os
import socket
import sys
import tempfile
import threading

from .script_session import Export, HangUp, Memory, Option, Request, Script, Session

__all__ = ["Export", "HangUp", "Memory", "Option", "Request", "Script", "ScriptServer"]


class ScriptServer:
    """Listens and serves each connection by a script, in threads.

    SCRIPTS: the nth connection goes by the nth script, later ones by the last; or a callable
    giving the script of the connection with a number.  `server.scripts` may be replaced at
    any time.  LISTEN: "unix", "unix:/path", "tcp", "tcp:HOST:PORT" (port 0: any).
    """

    def __init__(self, *scripts, listen="unix", on_event=None):
        self.scripts = scripts[0] if scripts and callable(scripts[0]) else (
            scripts or (Script(),))
        self.on_event = on_event
        self.sessions = []
        self.changed = threading.Condition()
        self.stop_event = threading.Event()
        self.threads = []
        self.directory = None
        self.listener = self._listen(listen)
        self._spawn(self._accept)

    @property
    def stopping(self):
        return self.stop_event.is_set()

    def _listen(self, where):
        family, _, address = where.partition(":")
        if family == "unix":
            if not address:
                self.directory = tempfile.TemporaryDirectory(prefix="nbd-script-")
                address = os.path.join(self.directory.name, "socket")
            self.path, self.port = address, None
            listener = socket.socket(socket.AF_UNIX)
        elif family == "tcp":
            host, _, port = (address or "127.0.0.1:0").rpartition(":")
            address = (host.strip("[]"), int(port))
            listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        else:
            raise ValueError(f"listen: expected unix or tcp, not {where!r}")
        listener.bind(address)
        listener.listen(64)
        if family == "tcp":
            self.path, (self.host, self.port) = None, listener.getsockname()[:2]
        return listener

    def _spawn(self, target, *args):
        thread = threading.Thread(target=target, args=args, daemon=True)
        self.threads.append(thread)
        thread.start()

    def _accept(self):
        while not self.stopping:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self._serve(sock)

    def _serve(self, sock):
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        n = len(self.sessions)
        if callable(self.scripts):
            script = self.scripts(n)
        else:
            script = self.scripts[min(n, len(self.scripts) - 1)]
        session = Session(self, sock, script)
        self.sessions.append(session)
        self.happened("connection", {"number": n})
        self._spawn(session.run)

    def happened(self, kind, details):
        with self.changed:
            if self.on_event:
                self.on_event(kind, details)
            self.changed.notify_all()

    def connected_socket(self):
        """A socket whose other end is served; the caller closes it."""
        ours, theirs = socket.socketpair()
        self._serve(ours)
        return theirs

    def uri(self, export="", query=""):
        if self.path:
            return f"nbd+unix:///{export}?socket={self.path}{query}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"nbd://{host}:{self.port}/{export}{query}"

    def session(self, n=-1):
        return self.sessions[n]

    def requests(self):
        return [r for s in list(self.sessions) for r in s.requests]

    def options(self):
        return [o for s in list(self.sessions) for o in s.options]

    @property
    def received(self):
        """Bytes that came from clients, over all connections."""
        return sum(s.received for s in list(self.sessions))

    def wait_for(self, condition, timeout=10):
        """Wait until CONDITION() holds, looked at whenever something happened."""
        with self.changed:
            if not self.changed.wait_for(condition, timeout):
                raise TimeoutError("script server: condition not met")

    def close(self):
        self.stop_event.set()
        for sock in [self.listener] + [s.sock for s in list(self.sessions)]:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.listener.close()
        for thread in list(self.threads):
            thread.join(10)
        if self.directory:
            self.directory.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def script_chooser(names, export):
    """Which script serves connection N: the Nth name; `@FILE` names a file that holds the
    script's name and is read at each connection, so that a test can switch it."""
    from .scripts import SCRIPTS

    def choose(n):
        name = names[min(n, len(names) - 1)]
        if name.startswith("@"):
            with open(name[1:]) as f:
                name = f.read().strip()
        return SCRIPTS[name].make(export)
    return choose


def parse_arguments(argv):
    import argparse
    from .scripts import SCRIPTS
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--listen", default="tcp", help="unix:PATH or tcp:HOST:PORT")
    parser.add_argument("--script", action="append", metavar="NAME|@FILE",
                        help="one a connection in turn, the last for the rest: " +
                        ", ".join(sorted(SCRIPTS)))
    parser.add_argument("--size", type=int, default=1 << 20, help="bytes of the export")
    parser.add_argument("--export", default="", help="name of the export")
    parser.add_argument("--log", help="file for what the client says, a JSON line an event")
    args = parser.parse_args(argv)
    for name in args.script or []:
        if name not in SCRIPTS and not name.startswith("@"):
            parser.error(f"no script {name!r}")
    return args


def main(argv):
    args = parse_arguments(argv)
    log = open(args.log, "w", buffering=1) if args.log else None

    def on_event(kind, details):
        if log:
            log.write(json.dumps({"event": kind, **details}) + "\n")

    listen = args.listen
    if listen.startswith("unix:") and os.path.exists(listen[5:]):
        os.unlink(listen[5:])
    exports = {args.export: Export(args.size)}
    choose = script_chooser(args.script or ["good"], exports)
    with ScriptServer(choose, listen=listen, on_event=on_event) as server:
        print(f"listening {server.path or server.port}", flush=True)
        server.stop_event.wait()


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KeyboardInterrupt:
        pass
