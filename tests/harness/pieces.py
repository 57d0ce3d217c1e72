"""Pieces of a session for Script: what a server may do when something arrives.

A piece is called with (session, message) and returns the bytes to send.
"""
import struct
import threading

from . import nbd_proto as p
from .script_session import HangUp


def stall(session, message):
    """Silence: read on, say nothing."""
    session.swallow_until_end()


def deaf(session, message):
    """Silence, and the client's bytes are not even read."""
    session.deaf_until_end()


def hang_up(session, message):
    """Close the connection without a word."""
    raise HangUp


def usual(session, message):
    return session.usual(message)


def half(session, message):
    """Half of the usual reply, then the end of the connection."""
    reply = session.usual(message)
    session.send(reply[:len(reply) // 2])
    raise HangUp


def half_then_stall(session, message):
    reply = session.usual(message)
    session.send(reply[:len(reply) // 2])
    session.swallow_until_end()


def first(n, then=hang_up):
    """The first N bytes of the usual reply, then another piece."""
    def piece(session, message):
        session.send(session.usual(message)[:n])
        return then(session, message)
    return piece


def dribble(session, message):
    """The usual reply, each byte by itself."""
    for byte in session.usual(message):
        session.send(bytes([byte]))


def doubled(session, message):
    return session.usual(message) * 2


def followed_by(extra):
    """The usual reply with EXTRA bytes after it in the same send."""
    return lambda session, message: session.usual(message) + extra


def said_then(extra, then):
    """Say EXTRA bytes, then another piece."""
    def piece(session, message):
        session.send(extra)
        return then(session, message)
    return piece


def patched(offset, format_, value):
    """The usual reply with the field at OFFSET replaced (FORMAT_ as in struct)."""
    def piece(session, message):
        reply = bytearray(session.usual(message))
        struct.pack_into(format_, reply, offset, value)
        return bytes(reply)
    return piece


def delayed(seconds, piece=usual):
    """The reply SECONDS late; requests behind it are answered meanwhile."""
    def later(session, message):
        session.send_later(seconds, piece(session, message))
    return later


def released_by(event, piece=usual):
    """The reply once EVENT (threading.Event) is set; the session waits for it."""
    def wait(session, message):
        event.wait(session.script.limit_seconds)
        return piece(session, message)
    return wait


def then_wait_for(event):
    """The usual reply; then nothing is read or said until EVENT is set."""
    def piece(session, message):
        session.send(session.usual(message))
        event.wait(session.script.limit_seconds)
    return piece


def gathered(count, order=reversed):
    """Nothing until COUNT of these have come; then all replies, in another order."""
    lock, held = threading.Lock(), []

    def piece(session, message):
        with lock:
            held.append(session.usual(message))
            if len(held) < count:
                return b""
            replies = list(order(held))
            held.clear()
        return b"".join(replies)
    return piece


def in_turn(*pieces):
    """The nth time the nth piece; the last for the rest."""
    state = {"n": 0}

    def piece(session, message):
        chosen = pieces[min(state["n"], len(pieces) - 1)]
        state["n"] += 1
        return chosen(session, message) if callable(chosen) else chosen
    return piece


def option_error(code, text=b"", length=None):
    """An NBD_REP_ERR_* reply to an option."""
    return lambda session, option: p.option_reply(option.number, code, text, length)


def option_says(reply, data=b"", length=None):
    """One option reply of any type and claimed length."""
    return lambda session, option: p.option_reply(option.number, reply, data, length)


def command_error(error, text=b""):
    """An error reply to a command."""
    return lambda session, request: session.error_reply(request, error, text)


def chunks(*described):
    """A structured reply: ((type, payload or callable(request)), ...)."""
    def piece(session, request):
        return session.reply(request, [
            (type_, payload(request) if callable(payload) else payload)
            for type_, payload in described])
    return piece


def endless(make):
    """MAKE(session, message)'s bytes again and again, until the client has enough."""
    def piece(session, message):
        block = make(session, message)
        block *= max(1, 65536 // len(block))
        while True:
            session.send(block)
    return piece
