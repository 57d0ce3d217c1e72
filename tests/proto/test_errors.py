"""Errors: per thread, in one form of text, with the errno that is documented."""
import errno
import threading

import pytest

from tests.harness import pieces
from tests.harness.nbd_ctypes import Handle, NbdError, buffer, library
from tests.proto.marks import better, needs


def fails(h, name, *arguments):
    with pytest.raises(NbdError) as e:
        h.call(name, *arguments)
    return e.value


def test_text_is_call_message_and_strerror(handle):
    e = fails(handle(), "set_tls", 9)
    assert e.text == "nbd_set_tls: tls: invalid value for parameter: 9: Invalid argument"
    assert e.errno == errno.EINVAL


def test_text_has_no_strerror_when_no_errno_is_known(handle):
    h = handle()
    e = fails(h, "connect_tcp", "no-such-host.invalid", "1")
    assert e.errno == 0
    assert e.text.startswith(
        'nbd_connect_tcp: getaddrinfo: hostname "no-such-host.invalid" port "1": ')


def test_the_call_that_was_made_is_named_not_its_asynchronous_part(serve, handle):
    h = handle()
    assert fails(h, "connect_uri", "nbd+unix:///?socket=/nonexistent/s").text.startswith(
        "nbd_connect_uri: connect: ")
    assert fails(handle(), "aio_connect_uri", "x:y").text.startswith("nbd_aio_connect_uri: ")


def test_errors_belong_to_the_thread(handle):
    h, seen = handle(), {}
    fails(h, "set_tls", 9)

    def other():
        seen["before"] = library().get_error(), library().get_errno()
        fails(h, "kill_subprocess", 15)
        seen["after"] = library().get_errno()
    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert seen["before"] == (None, 0)
    assert seen["after"] == errno.ESRCH
    assert library().get_errno() == errno.EINVAL
    assert b"nbd_set_tls" in library().get_error()


def test_error_survives_the_handle():
    h = Handle()
    fails(h, "set_tls", 9)
    h.close()
    assert library().get_errno() == errno.EINVAL


@pytest.mark.parametrize("name, values, text", [
    ("set_tls", (3,), "tls: invalid value for parameter: 3"),
    ("set_uri_allow_tls", (-1,), "tls: invalid value for parameter: -1"),
    ("set_handshake_flags", (0x8000,), "flags: invalid value for flag: 0x8000"),
    ("set_strict_mode", (0x10000,), "flags: invalid value for flag: 0x10000"),
    ("set_uri_allow_transports", (0x100,), "mask: invalid value for flag: 0x100"),
    ("get_block_size", (9,), "size_type: invalid value for parameter: 9"),
    ("shutdown", (1,), "flags: invalid value for flag: 0x1"),
])
def test_value_out_of_range_is_named(ready, handle, name, values, text):
    h = ready[1] if name in ("get_block_size", "shutdown") else handle()
    e = fails(h, name, *values)
    assert e.text == f"nbd_{name}: {text}: Invalid argument"
    assert e.errno == errno.EINVAL


@pytest.mark.parametrize("name, values", [
    ("set_export_name", ("n" * 4097,)), ("add_meta_context", ("c" * 4097,))])
def test_string_beyond_4096_bytes_is_enametoolong(handle, name, values):
    assert fails(handle(), name, *values).errno == errno.ENAMETOOLONG


def test_longest_names_are_taken(handle):
    h = handle()
    h.set_export_name("n" * 4096)
    h.add_meta_context("c" * 4096)
    assert h.get_export_name() == "n" * 4096
    assert h.get_meta_context(0) == "c" * 4096


def test_meta_context_index_out_of_range_is_einval(handle):
    h = handle(meta=["a", "b"])
    assert h.get_nr_meta_contexts() == 2
    assert fails(h, "get_meta_context", 2).errno == errno.EINVAL


def test_kill_without_subprocess_is_esrch(handle):
    assert fails(handle(), "kill_subprocess", 15).errno == errno.ESRCH


@pytest.mark.parametrize("name, values", [
    ("set_export_name", (None,)), ("add_meta_context", (None,)),
    ("set_handle_name", (None,)), ("connect_uri", (None,)), ("connect_unix", (None,)),
    ("connect_tcp", (None, "1")), ("connect_tcp", ("h", None)), ("connect_command", (None,)),
    ("set_tls_certificates", (None,)), ("set_tls_username", (None,)),
    ("set_tls_psk_file", (None,)), ("aio_connect_uri", (None,)),
    ("aio_connect", (None, 16)), ("connect_systemd_socket_activation", (None,)),
])
def test_null_instead_of_a_string_is_efault(handle, name, values):
    h = handle()
    e = fails(h, name, *values)
    assert e.errno == errno.EFAULT
    assert e.text.startswith(f"nbd_{name}: ")
    assert h.aio_is_created()


@better("the other crashes")
@pytest.mark.parametrize("name", ["pread", "pwrite"])
def test_null_instead_of_a_buffer_is_efault_and_sends_nothing(ready, name):
    server, h = ready
    assert fails(h, name, None, 512, 0, 0).errno == errno.EFAULT
    assert server.requests() == []


def test_null_callback_is_efault(handle, serve):
    server, h = serve(), handle(opt_mode=True)
    h.connect_uri(server.uri())
    assert fails(h, "opt_list", None).errno == errno.EFAULT
    assert h.aio_is_negotiating()


def test_unadvertised_texts_are_enotsup(ready):
    _, h = ready
    assert fails(h, "get_canonical_export_name").errno == errno.ENOTSUP
    assert fails(h, "get_export_description").errno == errno.ENOTSUP


@pytest.mark.parametrize("wire, local", [
    (1, errno.EPERM), (5, errno.EIO), (12, errno.ENOMEM), (22, errno.EINVAL),
    (28, errno.ENOSPC), (75, errno.EOVERFLOW), (95, errno.ENOTSUP), (108, errno.ESHUTDOWN),
    (99, errno.EINVAL), (0xFFFFFFFF, errno.EINVAL)])
@pytest.mark.parametrize("structured", [False, True])
def test_error_number_of_a_reply_becomes_errno(connected, structured, wire, local):
    _, h = connected(structured=structured, any_command=pieces.command_error(wire))
    e = fails(h, "pread", buffer(512), 512, 0, 0)
    assert e.errno == local
    assert e.text.startswith("nbd_pread: read: command failed: ")


@pytest.mark.parametrize("name, values, word", [
    ("pread", (buffer(512), 512, 0, 0), "read"),
    ("pwrite", (buffer(512), 512, 0, 0), "write"),
    ("flush", (0,), "flush"),
    ("trim", (512, 0, 0), "trim"),
    ("cache", (512, 0, 0), "cache"),
    ("zero", (512, 0, 0), "write-zeroes"),
])
def test_failed_command_is_named(connected, name, values, word):
    _, h = connected(structured=False, any_command=pieces.command_error(5))
    e = fails(h, name, *values)
    assert e.text == f"nbd_{name}: {word}: command failed: Input/output error"
    assert h.aio_is_ready()


@needs("is_uri")
def test_later_calls_take_no_null_either(handle):
    assert fails(handle(), "is_uri", None).errno == errno.EFAULT


def test_package_name_and_version(handle):
    h = handle()
    assert h.get_package_name() == "libnbd"
    parts = h.get_version().split(".")
    assert len(parts) == 3 and all(part.isdigit() for part in parts)
