"""The C API of libnbd.h and nbdd.h through ctypes, on any libnbd.so.0.

NBDD_TEST_LIB names the library; without it, the one that was built.  The bindings hold to the
header's documented types, so a test that passes here holds for a C program too.

    h = Handle()
    h.connect_uri(server.uri())             # nbd_connect_uri; raises NbdError on error
    data = h.read(offset=0, count=4096)

Every function of the API is a method without its nbd_ prefix; buffers and callbacks are
passed as `buffer(n)` and Callback objects.
"""
import ctypes as c
import os
import re
import socket
import struct
import time

from tests.harness.paths import BUILD

PATH = os.environ.get("NBDD_TEST_LIB") or str(BUILD / "libnbd.so.0")

# Callback structs: {callback, user_data, free}, handed over by value.
POINTER_INT = c.POINTER(c.c_int)
FREE = c.CFUNCTYPE(None, c.c_void_p)


class Extent64(c.Structure):
    _fields_ = [("length", c.c_uint64), ("flags", c.c_uint64)]


class Iovec(c.Structure):
    _fields_ = [("base", c.c_void_p), ("length", c.c_size_t)]


class Address(c.Structure):
    """struct nbdd_address: what nbdd_connect_addresses takes an array of."""
    _fields_ = [("length", c.c_uint32), ("storage", c.c_uint64 * 16)]


class Uri(c.Structure):
    """struct nbdd_uri."""
    _fields_ = [("transport", c.c_int), ("tls", c.c_int)] + [
        (name, c.c_char_p) for name in (
            "host", "port", "socket_path", "export_name", "username", "tls_certificates",
            "tls_psk_file", "tls_hostname", "tls_priority")] + [
        ("verify_peer", c.c_bool), ("vsock_cid", c.c_uint32), ("vsock_port", c.c_uint32)]


class TlsDirection(c.Structure):
    _fields_ = [("key", c.c_uint8 * 32), ("iv", c.c_uint8 * 12), ("sequence", c.c_uint64)]


class TlsState(c.Structure):
    """struct nbdd_tls_state."""
    _fields_ = [("version", c.c_uint16), ("cipher", c.c_uint16), ("key_len", c.c_uint8),
                ("iv_len", c.c_uint8), ("send", TlsDirection), ("receive", TlsDirection)]


class TlsInfo(c.Structure):
    """struct nbdd_tls_info."""
    _fields_ = [("version", c.c_uint16), ("cipher", c.c_char * 32), ("peer", c.c_char * 256),
                ("peer_expires", c.c_int64), ("own_expires", c.c_int64)]


def callback_struct(name, *arguments):
    function = c.CFUNCTYPE(c.c_int, c.c_void_p, *arguments)
    return type(name, (c.Structure,), {
        "function": function,
        "_fields_": [("callback", function), ("user_data", c.c_void_p), ("free", FREE)]})


COMPLETION = callback_struct("completion", POINTER_INT)
CHUNK = callback_struct("chunk", c.c_void_p, c.c_size_t, c.c_uint64, c.c_uint, POINTER_INT)
EXTENT = callback_struct("extent", c.c_char_p, c.c_uint64, c.POINTER(c.c_uint32),
                         c.c_size_t, POINTER_INT)
EXTENT64 = callback_struct("extent64", c.c_char_p, c.c_uint64, c.POINTER(Extent64),
                           c.c_size_t, POINTER_INT)
LIST = callback_struct("list", c.c_char_p, c.c_char_p)
CONTEXT = callback_struct("context", c.c_char_p)
DEBUG = callback_struct("debug", c.c_char_p, c.c_char_p)

# One letter a type in the table of functions below.
TYPES = {
    "h": c.c_void_p, "i": c.c_int, "I": c.c_int64, "u": c.c_uint, "U": c.c_uint64,
    "b": c.c_bool, "z": c.c_size_t, "Z": c.c_ssize_t, "p": c.c_void_p, "s": c.c_char_p,
    "S": c.c_void_p,        # char * that the caller frees
    "v": None, "a": c.POINTER(c.c_char_p), "t": c.c_size_t,     # uintptr_t
    "C": COMPLETION, "K": CHUNK, "E": EXTENT, "F": EXTENT64, "L": LIST, "M": CONTEXT,
    "D": DEBUG,
}

# name: result, then the arguments after the handle.
FUNCTIONS = """
set_debug:ib get_debug:i set_debug_callback:iD clear_debug_callback:i
set_handle_name:is get_handle_name:S set_private_data:tt get_private_data:t
set_export_name:is get_export_name:S
set_request_block_size:ib get_request_block_size:i set_full_info:ib get_full_info:i
get_canonical_export_name:S get_export_description:S
set_tls:ii get_tls:i get_tls_negotiated:i set_tls_certificates:is
set_tls_verify_peer:ib get_tls_verify_peer:i set_tls_username:is get_tls_username:S
set_tls_psk_file:is set_request_structured_replies:ib get_request_structured_replies:i
get_structured_replies_negotiated:i set_handshake_flags:iu get_handshake_flags:u
set_pread_initialize:ib get_pread_initialize:i set_strict_mode:iu get_strict_mode:u
set_opt_mode:ib get_opt_mode:i opt_go:i opt_abort:i opt_list:iL opt_info:i
opt_list_meta_context:iM add_meta_context:is get_nr_meta_contexts:Z get_meta_context:Sz
clear_meta_contexts:i set_uri_allow_transports:iu set_uri_allow_tls:ii
set_uri_allow_local_file:ib connect_uri:is connect_unix:is connect_vsock:iuu
connect_tcp:iss connect_socket:ii connect_command:ia connect_systemd_socket_activation:ia
is_read_only:i can_flush:i can_fua:i is_rotational:i can_trim:i can_zero:i
can_fast_zero:i can_df:i can_multi_conn:i can_cache:i can_meta_context:is
get_protocol:s get_size:I get_block_size:Ii
pread:ipzUu pread_structured:ipzUKu pwrite:ipzUu shutdown:iu flush:iu trim:iUUu
cache:iUUu zero:iUUu block_status:iUUEu poll:ii
aio_connect:ipu aio_connect_uri:is aio_connect_unix:is aio_connect_vsock:iuu
aio_connect_tcp:iss aio_connect_socket:ii aio_connect_command:ia
aio_connect_systemd_socket_activation:ia
aio_opt_go:iC aio_opt_abort:i aio_opt_list:iLC aio_opt_info:iC
aio_opt_list_meta_context:iMC
aio_pread:IpzUCu aio_pread_structured:IpzUKCu aio_pwrite:IpzUCu aio_disconnect:iu
aio_flush:ICu aio_trim:IUUCu aio_cache:IUUCu aio_zero:IUUCu aio_block_status:IUUECu
aio_get_fd:i aio_get_direction:u aio_notify_read:i aio_notify_write:i
aio_is_created:i aio_is_connecting:i aio_is_negotiating:i aio_is_ready:i
aio_is_processing:i aio_is_dead:i aio_is_closed:i aio_command_completed:iU
aio_peek_command_completed:I aio_in_flight:i connection_state:s get_package_name:s
get_version:s kill_subprocess:ii supports_tls:i supports_uri:i get_uri:S
"""
FUNCTIONS_LATER = """
poll2:iii supports_vsock:i stats_bytes_sent:U stats_chunks_sent:U
stats_bytes_received:U stats_chunks_received:U opt_list_meta_context_queries:iaM
aio_opt_list_meta_context_queries:iaMC set_request_meta_context:ib
get_request_meta_context:i opt_set_meta_context:iM opt_set_meta_context_queries:iaM
aio_opt_set_meta_context:iMC aio_opt_set_meta_context_queries:iaMC
opt_structured_reply:i aio_opt_structured_reply:iC opt_starttls:i aio_opt_starttls:iC
set_socket_activation_name:is get_socket_activation_name:S
set_request_extended_headers:ib get_request_extended_headers:i
get_extended_headers_negotiated:i opt_extended_headers:i aio_opt_extended_headers:iC
can_block_status_payload:i block_status_64:iUUFu aio_block_status_64:IUUFCu
block_status_filter:iUUaFu aio_block_status_filter:IUUaFCu is_uri:is
get_subprocess_pid:I set_tls_hostname:is get_tls_hostname:S set_tls_priority:is
get_tls_priority:S set_uri_allow_tls_priority:ib get_version_extra:s get_handle_size:Z
"""
FUNCTIONS_OWN = """
take_socket:i take_tls_socket:ip get_tls_info:ip
read_tls_credentials:p set_tls_credentials:ip connect_addresses:ipz
aio_connect_addresses:ipz preadv:ipzUu pwritev:ipzUu aio_preadv:IpzUCu aio_pwritev:IpzUCu
get_transmission_flags:I get_option_reply:I
"""


class NbdError(Exception):
    """A call failed: its text as nbd_get_error gives it, its errno (0: none known)."""

    def __init__(self, text, errno):
        super().__init__(f"{text} (errno {errno})")
        self.text, self.errno = text, errno


class Library:
    """The library under test, loaded."""

    def __init__(self, path=PATH):
        self.path = path
        self.dll = c.CDLL(path)
        self.is_ours = hasattr(self.dll, "nbdd_take_socket")
        self.functions = {}
        for prefix, table in (("nbd_", FUNCTIONS), ("nbd_", FUNCTIONS_LATER),
                              ("nbdd_", FUNCTIONS_OWN)):
            for entry in table.split():
                self._declare(prefix, *entry.split(":"))
        self.create = self._plain("nbd_create", c.c_void_p)
        self.close = self._plain("nbd_close", None, c.c_void_p)
        self.get_error = self._plain("nbd_get_error", c.c_char_p)
        self.get_errno = self._plain("nbd_get_errno", c.c_int)
        if self.is_ours:
            self.uri_parse = self._plain("nbdd_uri_parse", c.POINTER(Uri), c.c_char_p)
            self.free_tls_credentials = self._plain("nbdd_free_tls_credentials", None,
                                                    c.c_void_p)
            self.dial = self._plain("nbdd_dial", c.c_int, c.c_void_p, c.c_size_t)
            self.dial_several = self._plain("nbdd_dial_several", c.c_int, c.c_void_p,
                                            c.c_size_t, c.POINTER(c.c_int), c.c_size_t,
                                            c.c_int)
            self.uri_free = self._plain("nbdd_uri_free", None, c.POINTER(Uri))
        self.free = c.CDLL(None).free
        self.free.argtypes = [c.c_void_p]

    def _plain(self, name, result, *arguments):
        function = getattr(self.dll, name)
        function.restype, function.argtypes = result, arguments
        return function

    def _declare(self, prefix, name, signature):
        if hasattr(self.dll, prefix + name):
            self.functions[name] = (
                self._plain(prefix + name, TYPES[signature[0]], TYPES["h"],
                            *(TYPES[letter] for letter in signature[1:])),
                signature)

    def has(self, name):
        return name in self.functions

    def error(self):
        return NbdError((self.get_error() or b"").decode("utf8", "replace"),
                        self.get_errno())


_library = None


def library():
    """The one library under test, loaded at first use."""
    global _library
    if _library is None:
        _library = Library()
    return _library


class Callback:
    """A callback that records its calls and how often it was freed.

    KIND is one of the structs above.  REACT(*arguments) gives its return value, None for 0;
    an `error` pointer is handed to it as it is in C.
    """

    def __init__(self, kind, react=None):
        self.calls, self.frees, self.called_after_free = [], 0, False
        self.react, self.on_free = react, None
        self.struct = kind(kind.function(self._call), 0x5EED, FREE(self._free))
        self.kind = kind
        self.user_data = set()

    def _call(self, user_data, *arguments):
        self.user_data.add(user_data)
        self.called_after_free |= self.frees > 0
        record = self._record(*arguments)
        self.calls.append(record)
        result = self.react(*arguments) if self.react else None
        return 0 if result is None else result

    def _record(self, *arguments):
        """Arguments as Python values: what pointers lead to is copied."""
        if self.kind is COMPLETION:
            return arguments[0][0]
        if self.kind is CHUNK:
            data, count, offset, status, error = arguments
            return (c.string_at(data, count) if status == 1 else count, offset, status,
                    error[0])
        if self.kind is EXTENT:
            name, offset, entries, n, error = arguments
            return (name, offset, list(zip(entries[0:n:2], entries[1:n:2])), error[0])
        if self.kind is EXTENT64:
            name, offset, entries, n, error = arguments
            return (name, offset, [(e.length, e.flags) for e in entries[0:n]], error[0])
        return arguments if len(arguments) > 1 else arguments[0]

    def _free(self, user_data):
        self.user_data.add(user_data)
        self.frees += 1
        if self.on_free:
            self.on_free()

    @property
    def sound(self):
        """Freed exactly once, after its last call, always with its own user_data."""
        return self.frees == 1 and not self.called_after_free \
            and self.user_data <= {0x5EED}


def null_completion():
    return COMPLETION()


def completion(react=None):
    return Callback(COMPLETION, react)


def buffer(size_or_data):
    if isinstance(size_or_data, int):
        return c.create_string_buffer(max(1, size_or_data))
    return c.create_string_buffer(bytes(size_or_data), max(1, len(size_or_data)))


def strings(values):
    """char *[] that ends with NULL."""
    values = [v.encode() if isinstance(v, str) else v for v in values]
    return (c.c_char_p * (len(values) + 1))(*values, None)


def iovecs(*buffers):
    """struct iovec[] over ctypes buffers; (buffer, offset, length) takes a part."""
    array = (Iovec * len(buffers))()
    for vector, item in zip(array, buffers):
        whole, at, length = item if isinstance(item, tuple) else (item, 0, len(item))
        vector.base, vector.length = c.addressof(whole) + at, length
    return array


def addresses(*described):
    """struct nbdd_address[] of (host, port) pairs and Unix socket paths."""
    array = (Address * len(described))()
    for address, item in zip(array, described):
        if isinstance(item, str):
            raw = struct.pack("=H", socket.AF_UNIX) + item.encode() + b"\0"
        elif ":" in item[0]:
            raw = struct.pack("=H", socket.AF_INET6) + struct.pack(">HI", item[1], 0) + \
                socket.inet_pton(socket.AF_INET6, item[0]) + bytes(4)
        else:
            raw = struct.pack("=H", socket.AF_INET) + struct.pack(">H", item[1]) + \
                socket.inet_aton(item[0]) + bytes(8)
        address.length = len(raw)
        c.memmove(address.storage, raw, len(raw))
    return array


class Handle:
    """An NBD handle.  Failing calls raise NbdError; `h.raw(name, ...)` just returns."""

    def __init__(self, lib=None):
        self.lib = lib or library()
        self.pointer = self.lib.create()
        if not self.pointer:
            raise self.lib.error()
        self.kept = []          # what C holds pointers to

    def close(self):
        if self.pointer:
            self.lib.close(self.pointer)
            self.pointer = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def __del__(self):
        self.close()

    def raw(self, name, *arguments):
        """The C function's own result, converted; a failure is -1 or None."""
        function, signature = self.lib.functions[name]
        result = function(self.pointer,
                          *(self._argument(letter, value)
                            for letter, value in zip(signature[1:], arguments)))
        if signature[0] == "S" and result is not None:
            text = c.string_at(result).decode("utf8", "surrogateescape")
            self.lib.free(result)
            return text
        if signature[0] == "s" and result is not None:
            return result.decode("utf8", "surrogateescape")
        return result

    def _argument(self, letter, value):
        if isinstance(value, Callback):
            self.kept.append(value)
            return value.struct
        if value is None and letter in "CKEFLMD":
            return TYPES[letter]()
        if letter == "s" and isinstance(value, str):
            return value.encode()
        if letter == "a" and isinstance(value, (list, tuple)):
            value = strings(value)
        if letter in "ap":
            self.kept.append(value)
        return value

    def call(self, name, *arguments):
        result = self.raw(name, *arguments)
        letter = self.lib.functions[name][1][0]
        if (letter in "iIZ" and result == -1) or (letter in "sSp" and result is None):
            raise self.lib.error()
        return result

    def __getattr__(self, name):
        if name.startswith("_") or name not in self.lib.functions:
            raise AttributeError(f"{self.lib.path} has no function for {name}")
        return lambda *arguments: self.call(name, *arguments)

    # Shorthands ---------------------------------------------------------------------

    def read(self, offset, count, flags=0):
        data = buffer(count)
        self.call("pread", data, count, offset, flags)
        return data.raw[:count]

    def write(self, offset, data, flags=0):
        return self.call("pwrite", buffer(data), len(data), offset, flags)

    def list(self):
        found = Callback(LIST)
        self.call("opt_list", found)
        return [(n.decode(), d.decode()) for n, d in found.calls]

    def state(self):
        """The name of the state alone: START, READY, CLOSED..."""
        return re.match(r"[A-Z0-9_.]*", self.connection_state())[0]

    def poll_until(self, condition, timeout=10):
        """Drive the handle by nbd_poll until CONDITION()."""
        end = time.monotonic() + timeout
        while not condition():
            if time.monotonic() > end:
                raise TimeoutError("handle: condition not met")
            self.call("poll", 100)
