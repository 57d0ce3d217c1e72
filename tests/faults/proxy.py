"""A TCP proxy in a guest, before a server: passes everything on, until told otherwise.

    proxy.py PORT SERVER-PORT ORDERS

ORDERS is a file with one word; whoever writes it sees the proxy obey within 50 ms:
    pass            again
    reset           end all connections by RST, now; then pass
    refuse          RST for every new connection
    hold            accept, and pass nothing on
    corrupt SEED    flip bytes that the server sends in the handshake of new connections
    half N          end new connections after N bytes from the server
"""
import os
import random
import selectors
import socket
import struct
import sys

HANDSHAKE = 70                  # bytes from the server that every handshake has at least
CHUNK = 1 << 18
TICK = 0.05


class Pair:
    """A client's connection and the one to the server that belongs to it."""

    def __init__(self, client, server, order):
        self.client, self.server = client, server
        self.word, _, argument = order.partition(' ')
        self.number = int(argument or 0)
        self.from_server = 0
        self.waiting = {client: b'', server: b''}       # to be sent there
        self.ended = set()                              # sent no more

    def other(self, sock):
        return self.server if sock is self.client else self.client

    def altered(self, data):
        """What of DATA, from the server, goes on; None to end the connection."""
        at, self.from_server = self.from_server, self.from_server + len(data)
        if self.word == 'half':
            return None if self.from_server >= self.number else data
        if self.word == 'corrupt' and at < HANDSHAKE:
            rng = random.Random(self.number + at)
            data = bytearray(data)
            for _ in range(3):
                data[rng.randrange(min(len(data), HANDSHAKE - at))] ^= 1 << rng.randrange(8)
        return bytes(data)


class Proxy:
    def __init__(self, port, server_port, orders):
        self.server_port, self.orders = server_port, orders
        self.order, self.stamp = 'pass', None
        self.pairs = {}
        self.selector = selectors.DefaultSelector()
        self.listener = socket.create_server(('127.0.0.1', port), backlog=64)
        self.selector.register(self.listener, selectors.EVENT_READ)

    def read_order(self):
        # Two orders may have the same time, which goes by ticks.
        try:
            with open(self.orders, encoding='ascii') as f:
                text, time = f.read().strip() or 'pass', os.fstat(f.fileno()).st_mtime_ns
        except OSError:
            return
        if (text, time) == self.stamp:
            return
        self.order, self.stamp = text, (text, time)
        if self.order == 'reset':
            for pair in set(self.pairs.values()):
                self.end(pair, reset=True)
            self.order = 'pass'
        for pair in set(self.pairs.values()):
            self.watch(pair)

    def accept(self):
        client = self.listener.accept()[0]
        server = None
        try:
            if self.order == 'refuse':
                raise OSError
            server = socket.create_connection(('127.0.0.1', self.server_port), timeout=1)
        except OSError:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
            client.close()
            return
        pair = Pair(client, server, self.order)
        for sock in (client, server):
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.pairs[sock] = pair
            self.selector.register(sock, selectors.EVENT_READ)
        self.watch(pair)

    def watch(self, pair):
        for sock in (pair.client, pair.server):
            events = 0
            # No more is read than the other side takes.
            if self.order != 'hold' and sock not in pair.ended and \
                    not pair.waiting[pair.other(sock)]:
                events |= selectors.EVENT_READ
            if pair.waiting[sock] and self.order != 'hold':
                events |= selectors.EVENT_WRITE
            known = sock in self.selector.get_map()
            if events and known:
                self.selector.modify(sock, events)
            elif events:
                self.selector.register(sock, events)
            elif known:
                self.selector.unregister(sock)

    def end(self, pair, reset=False):
        for sock in (pair.client, pair.server):
            if sock in self.selector.get_map():
                self.selector.unregister(sock)
            self.pairs.pop(sock, None)
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
            sock.close()

    @staticmethod
    def flush(pair, to):
        try:
            pair.waiting[to] = pair.waiting[to][to.send(pair.waiting[to]):]
        except BlockingIOError:
            pass

    def move(self, pair, sock, events):
        if events & selectors.EVENT_WRITE:
            self.flush(pair, sock)
        if events & selectors.EVENT_READ:
            data = sock.recv(CHUNK)
            to = pair.other(sock)
            if data and sock is pair.server:
                data = pair.altered(data)
                if data is None:
                    raise ConnectionResetError
            if data:
                pair.waiting[to] = data
                self.flush(pair, to)
            else:
                pair.ended.add(sock)
                to.shutdown(socket.SHUT_WR)
                if to in pair.ended:
                    raise ConnectionResetError
        self.watch(pair)

    def run(self):
        while True:
            for key, events in self.selector.select(TICK):
                if key.fileobj is self.listener:
                    self.accept()
                    continue
                pair = self.pairs.get(key.fileobj)
                try:
                    if pair:
                        self.move(pair, key.fileobj, events)
                except BlockingIOError:
                    self.watch(pair)
                except OSError:
                    self.end(pair)
            self.read_order()


if __name__ == '__main__':
    Proxy(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]).run()
