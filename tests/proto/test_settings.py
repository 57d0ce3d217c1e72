"""What a new handle is set to, and that settings are kept."""
import pytest

from tests.harness.nbd_ctypes import DEBUG, Callback, Handle, NbdError
from tests.proto.marks import needs


@pytest.mark.parametrize("name, value", [
    ("debug", 0), ("tls", 0), ("tls_verify_peer", 1), ("request_structured_replies", 1),
    ("pread_initialize", 1), ("request_block_size", 1), ("full_info", 0), ("opt_mode", 0),
    ("handshake_flags", 3), ("export_name", ""), ("nr_meta_contexts", 0)])
def test_default(handle, name, value):
    assert handle().call("get_" + name) == value


def test_strict_mode_has_every_check_by_default(handle):
    assert handle().get_strict_mode() & 0x1F == 0x1F


@needs("set_request_meta_context", "set_request_extended_headers")
@pytest.mark.parametrize("name, value", [
    ("request_meta_context", 1), ("request_extended_headers", 1),
    # What programs of 1.14 take for the mask; the later checks are in force all the same.
    ("strict_mode", 0x1F),
    ("socket_activation_name", "")])
def test_default_of_later_settings(handle, name, value):
    assert handle().call("get_" + name) == value


@pytest.mark.parametrize("name, values", [
    ("tls", (0, 1, 2)), ("tls_verify_peer", (0, 1)), ("request_structured_replies", (0, 1)),
    ("pread_initialize", (0, 1)), ("request_block_size", (0, 1)), ("full_info", (1, 0)),
    ("opt_mode", (1, 0)), ("handshake_flags", (0, 1, 2, 3)), ("strict_mode", (0, 1, 0x1F)),
    ("export_name", ("x", "", "ünï")), ("tls_username", ("alice",)),
    ("handle_name", ("mine", "")), ("debug", (1, 0))])
def test_setting_is_kept(handle, name, values, capfd):
    h = handle()
    for value in values:
        h.call("set_" + name, value)
        assert h.call("get_" + name) == value


def test_meta_contexts_are_listed_in_order_and_cleared(handle):
    h = handle(meta=["base:allocation", "x:y", "base:allocation"])
    assert [h.get_meta_context(i) for i in range(h.get_nr_meta_contexts())] == [
        "base:allocation", "x:y", "base:allocation"]
    h.clear_meta_contexts()
    assert h.get_nr_meta_contexts() == 0


def test_private_data_gives_back_what_was_there_before(handle):
    h = handle()
    assert h.get_private_data() == 0
    assert h.set_private_data(42) == 0
    assert h.set_private_data(2 ** 64 - 1) == 42
    assert h.get_private_data() == 2 ** 64 - 1


def test_handles_are_named_by_a_counter(handle):
    names = [handle().get_handle_name() for _ in range(3)]
    numbers = [int(name.removeprefix("nbd")) for name in names]
    assert numbers == list(range(numbers[0], numbers[0] + 3))


def test_missing_tls_files_are_no_error_before_connecting(handle):
    h = handle()
    h.set_tls_psk_file("/nonexistent/psk")
    h.set_tls_certificates("/nonexistent")


def test_uri_and_tls_are_supported(handle):
    assert handle().supports_uri() == 1


def test_debug_messages_go_to_the_callback(handle):
    h, said = handle(), Callback(DEBUG)
    h.set_debug_callback(said)
    h.set_debug(True)
    h.set_full_info(True)
    contexts = {context for context, _ in said.calls}
    messages = [m for context, m in said.calls if context == b"nbd_set_full_info"]
    assert b"nbd_set_full_info" in contexts
    assert messages[0].startswith(b"enter: ") and messages[-1] == b"leave: ret=0"
    assert b"request=true" in messages[0]


def test_debug_callback_is_freed_when_replaced_cleared_and_at_close():
    h = Handle()
    first, second, third = Callback(DEBUG), Callback(DEBUG), Callback(DEBUG)
    h.set_debug_callback(first)
    h.set_debug_callback(second)
    assert (first.frees, second.frees) == (1, 0)
    h.clear_debug_callback()
    assert second.frees == 1
    h.set_debug_callback(third)
    h.close()
    assert (first.frees, second.frees, third.frees) == (1, 1, 1)


def test_debug_messages_go_to_stderr_without_a_callback(handle, capfd):
    h = handle()
    h.set_handle_name("the-handle")
    h.set_debug(True)
    h.set_full_info(True)
    with pytest.raises(NbdError):
        h.set_tls(9)
    lines = capfd.readouterr().err.splitlines()
    assert "libnbd: debug: the-handle: nbd_set_full_info: leave: ret=0" in lines
    assert any(line.startswith("libnbd: debug: the-handle: nbd_set_tls: leave: error=\"")
               for line in lines)


def test_environment_sets_debug(monkeypatch, capfd):
    monkeypatch.setenv("LIBNBD_DEBUG", "1")
    with Handle() as h:
        assert h.get_debug() == 1
