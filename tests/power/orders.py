"""In a guest: systemd's part for `nbdd --serve=programs`, and clients of that."""
import ctypes
import os
import signal
import socket

from tests.harness.activated import become

SOCKETS = {}            # by path: what systemd would keep
CLIENTS = []


class News(ctypes.Structure):
    """struct news of daemon/news.h."""
    _fields_ = [('real_usec', ctypes.c_uint64), ('kind', ctypes.c_int),
                ('device', ctypes.c_char * 32), ('name', ctypes.c_char * 129),
                ('message', ctypes.c_char * 512)]


def listen(path):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.bind(path)
    os.chmod(path, 0o666)       # to see what the process itself does about strangers
    sock.listen(16)
    SOCKETS[path] = sock


def serve(path, argv, log):
    """Start ARGV with the socket; its pid."""
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), 2)
        become(argv, SOCKETS[path])
    return pid


def end(pid, sig):
    """Its exit status, negative of a signal."""
    if sig:
        os.kill(pid, sig)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def order(real_usec=1, kind=0, device='/dev/nbd0', name='a', message='m'):
    return bytes(News(real_usec, kind, device.encode(), name.encode(), message.encode()))


def connect(path, uid):
    """As the user UID."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.settimeout(50)
    os.seteuid(uid)
    try:
        sock.connect(path)
    finally:
        os.seteuid(0)
    return sock


def send(path, uid, orders, stay=False):
    """Give each of ORDERS (fields of News, or bytes as a list) as the user UID."""
    sock = connect(path, uid)
    for o in orders:
        sock.send(bytes(o) if isinstance(o, list) else order(**o))
    if stay:
        CLIENTS.append(sock)
    else:
        sock.close()


def turned_away(path, uid):
    """Is a connection of UID ended by the other side?"""
    with connect(path, uid) as sock:
        return sock.recv(1) == b''


def send_again(number):
    """What becomes of an order, of no device, on the connection of an earlier one that stayed."""
    try:
        CLIENTS[number].send(order(name='no-device'))
        return 'sent'
    except OSError as e:
        return os.strerror(e.errno)


def close_all():
    while CLIENTS:
        CLIENTS.pop().close()
