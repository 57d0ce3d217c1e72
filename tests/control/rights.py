"""Runs in a guest: a user who sends nbdd descriptors whose last close takes for ever."""
import array
import os
import signal
import socket
import struct

from tests.control.varlink import Varlink

NOBODY = 65534
YEARS = 60 * 60 * 24 * 365 * 10         # seconds
KEPT = []                               # what must not be closed before the end


def lingering():
    """A TCP socket whose last close waits until its peer, who never does, has read all."""
    with socket.create_server(('127.0.0.1', 0)) as listener:
        s = socket.create_connection(listener.getsockname())
        KEPT.append(listener.accept()[0])
    s.setblocking(False)
    try:
        while True:
            s.send(bytes(1 << 16))
    except BlockingIOError:
        pass
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, YEARS))
    return s


def pass_on(client, fd, flags=0):
    """FD with a byte."""
    fds = array.array('i', [fd])
    client.sock.sendmsg([b' '], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)], flags)


def give(client, flags=0):
    """Send the only descriptor of one.  False: this kernel does not let it through."""
    s = lingering()
    try:
        pass_on(client, s.fileno(), flags)
        return True
    except PermissionError:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        return False
    finally:
        s.close()


def with_a_byte(c):
    return give(c)


def out_of_band(c):
    sent = give(c, socket.MSG_OOB)
    c.raw(b'\0')
    return sent


def left_unread(c):
    c.raw(b'no call\0')
    return give(c)


WAYS = {f.__name__: f for f in (with_a_byte, out_of_band, left_unread)}


def send(path, pid, ways, clients=0):
    """Each of WAYS by a client of its own, who stays, as nobody, when so many CLIENTS are there
    already: which of them were let through.  All of it lies there when process PID goes on."""
    os.seteuid(NOBODY)
    try:
        KEPT.extend(Varlink(path) for _ in range(clients))
        for c in KEPT[-clients:] if clients else []:
            c.send('io.nbdd.Manager.Status')
            c.receive()
        os.seteuid(0)
        os.kill(pid, signal.SIGSTOP)
        os.seteuid(NOBODY)
        mine = [Varlink(path) for _ in ways]
        KEPT.extend(mine)
        return [WAYS[way](c) for way, c in zip(ways, mine)]
    finally:
        os.seteuid(0)
        os.kill(pid, signal.SIGCONT)


def delete_files(files):
    """FILES are deleted, and here is the last descriptor of each."""
    fds = [os.open(file, os.O_RDWR | os.O_CREAT, 0o600) for file in files]
    for fd, file in zip(fds, files):
        os.write(fd, bytes(4096))
        os.unlink(file)
    return fds


def send_deleted(path, fds):
    """Each by a client of its own, as nobody."""
    os.seteuid(NOBODY)
    try:
        for fd in fds:
            KEPT.append(Varlink(path))
            pass_on(KEPT[-1], fd)
            os.close(fd)
    finally:
        os.seteuid(0)


def let_go():
    """Close all that was kept."""
    while KEPT:
        KEPT.pop().close()
