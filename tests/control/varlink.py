"""A Varlink client that can also break the rules."""
import json
import socket


class Varlink:
    """A connection to PATH.  `send` takes calls or raw bytes; `receive` gives replies."""

    def __init__(self, path, timeout=10):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(path))            # blocks, while the backlog is full
        self.sock.settimeout(timeout)
        self.buffer = b''

    def raw(self, data):
        self.sock.sendall(data)

    def send(self, method, parameters=None, **flags):
        call = {'method': method, **flags}
        if parameters is not None:
            call['parameters'] = parameters
        self.raw(json.dumps(call).encode() + b'\0')

    def receive(self):
        """The next reply; None when the server has closed."""
        while b'\0' not in self.buffer:
            try:
                data = self.sock.recv(1 << 20)
            except ConnectionResetError:
                data = b''
            if not data:
                assert not self.buffer, f'half a reply: {self.buffer[:200]}'
                return None
            self.buffer += data
        message, self.buffer = self.buffer.split(b'\0', 1)
        return json.loads(message.decode())

    def call(self, method, parameters=None, **flags):
        self.send(method, parameters, **flags)
        return self.receive()

    def close(self):
        self.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def talk(path, calls):
    """The replies to CALLS, [method, parameters] each; for use in a guest."""
    with Varlink(path) as c:
        return [c.call(method, parameters) for method, parameters in calls]
