"""A daemon that says what a test wants: io.nbdd.Manager answered from a table, so that
nbdctl can be shown devices in every state, and errors, without a kernel."""
import copy
import json
import os
import pathlib
import socketserver
import threading

DEVICE = {
    'name': 'root', 'device': '/dev/nbd0', 'index': 0, 'state': 'connected',
    'uri': 'nbd://server.example/root', 'keys': {}, 'peer': '192.0.2.1:10809', 'size': 10 << 30,
    'block_size': 4096, 'read_only': False, 'flags': ['flush', 'fua', 'trim'], 'tls': None,
    'connections': [{'state': 'connected', 'peer': '192.0.2.1:10809', 'rtt_usec': 250,
                     'retransmits': 3, 'since': 1700000000000000, 'relay': None}],
    'outages': {'count': 2, 'total_usec': 63000000,
                'last': {'start': 1700000000000000, 'duration_usec': 8200000,
                         'reason': 'Connection reset by peer'}},
    'retry': {'attempts': 0, 'next_usec': 0, 'last_error': ''},
    'io': {'reads': 100, 'writes': 20, 'bytes': 123456789, 'in_flight': 3}, 'move': None,
    'warnings': [],
}


def device(**changes):
    return {**copy.deepcopy(DEVICE), **changes}


def error(name, **parameters):
    return {'error': f'io.nbdd.Manager.{name}', 'parameters': parameters}


class Manager:
    """Listens on DIRECTORY/control.  `answers`: {method: reply, list of replies with more,
    or a function of the parameters}; `calls`: what came, (method, parameters)."""

    def __init__(self, directory):
        self.path = pathlib.Path(directory) / 'control'
        self.answers, self.calls = {}, []
        self.hang_up_after = {}         # {method: how many calls of it end the connection}
        manager = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                manager.serve(self.rfile, self.wfile)

        class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
            daemon_threads = True
        os.makedirs(directory, exist_ok=True)
        self.server = Server(str(self.path), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))
        self.thread.start()

    def serve(self, rfile, wfile):
        data = b''
        while byte := rfile.read(1):
            if byte != b'\0':
                data += byte
                continue
            call, data = json.loads(data), b''
            method = call['method'].rsplit('.', 1)[1]
            self.calls.append((method, call.get('parameters')))
            answer = self.answers[method]
            if callable(answer):
                answer = answer(call.get('parameters'))
            if answer is None:
                return
            for reply in [answer] if isinstance(answer, (dict, bytes)) else answer:
                wfile.write(reply if isinstance(reply, bytes) else
                            json.dumps(reply).encode() + b'\0')
                wfile.flush()
            if self.hang_up_after.get(method, 0) > 0:
                self.hang_up_after[method] -= 1
                return

    def status(self, *devices):
        """Status says these devices."""
        self.answers['Status'] = {'parameters': {'devices': list(devices)}}

    def close(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
