"""In a guest: clients of a service, which ask for nothing, or for what there is not."""
import socket
import struct

CLIENTS = []


def connect(path, number):
    for _ in range(number):
        CLIENTS.append(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        CLIENTS[-1].connect(path)


def leave():
    while CLIENTS:
        CLIENTS.pop().close()


def order(verb, role=0, has_job=0, has_kept=0, what='connect x', version=''):
    """struct spawner_order of daemon/spawner.h."""
    return struct.pack('=4I16s16s', verb, role, has_job, has_kept, what.encode(), version.encode())


def send(path, orders):
    """Send each of ORDERS (fields of one, or so many zero bytes) with the descriptors that it has
    of its FDS."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.connect(path)
        for o in orders:
            data = bytes(o) if isinstance(o, int) else order(*o['order'])
            socket.send_fds(sock, [data], [0] * (o['fds'] if isinstance(o, dict) else 0))
