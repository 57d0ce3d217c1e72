"""In a guest: clients of a service, which ask for nothing."""
import socket

CLIENTS = []


def connect(path, number):
    for _ in range(number):
        CLIENTS.append(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        CLIENTS[-1].connect(path)


def leave():
    while CLIENTS:
        CLIENTS.pop().close()
