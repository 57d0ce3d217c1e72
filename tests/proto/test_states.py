"""Every call in every state it is not made for: the right error, nothing sent, nothing
changed, callbacks freed.  The table says which states permit each call."""
import errno
import itertools

import pytest

from tests.harness import pieces
from tests.harness.nbd_ctypes import (CHUNK, COMPLETION, CONTEXT, EXTENT, EXTENT64, LIST,
                                      Callback, Handle, NbdError, buffer, library)

CREATED, CONNECTING, NEGOTIATING, CONNECTED, CLOSED, DEAD = STATES = (
    "newly created", "connecting", "negotiating", "connected with the server", "shut down",
    "dead")

PERMITTED = {
    (CREATED, NEGOTIATING): """
        set_export_name set_request_block_size set_full_info add_meta_context
        clear_meta_contexts set_request_meta_context""",
    (CREATED,): """
        set_tls set_tls_certificates set_tls_verify_peer set_tls_username set_tls_psk_file
        set_tls_hostname set_tls_priority set_request_structured_replies
        set_request_extended_headers set_handshake_flags set_opt_mode
        set_uri_allow_transports set_uri_allow_tls set_uri_allow_local_file
        set_uri_allow_tls_priority set_socket_activation_name
        connect_uri connect_unix connect_vsock connect_tcp connect_socket connect_command
        connect_systemd_socket_activation aio_connect aio_connect_uri aio_connect_unix
        aio_connect_vsock aio_connect_tcp aio_connect_socket aio_connect_command
        aio_connect_systemd_socket_activation connect_addresses
        aio_connect_addresses read_tls_credentials set_tls_credentials""",
    (NEGOTIATING,): """
        opt_go opt_abort opt_list opt_info opt_list_meta_context
        opt_list_meta_context_queries opt_set_meta_context opt_set_meta_context_queries
        opt_structured_reply opt_starttls opt_extended_headers
        aio_opt_go aio_opt_abort aio_opt_list aio_opt_info aio_opt_list_meta_context
        aio_opt_list_meta_context_queries aio_opt_set_meta_context
        aio_opt_set_meta_context_queries aio_opt_structured_reply aio_opt_starttls
        aio_opt_extended_headers""",
    (NEGOTIATING, CONNECTED, CLOSED): """
        get_canonical_export_name get_export_description get_tls_negotiated
        get_structured_replies_negotiated get_extended_headers_negotiated is_read_only
        can_flush can_fua is_rotational can_trim can_zero can_fast_zero can_df
        can_multi_conn can_cache can_meta_context can_block_status_payload get_protocol
        get_size get_block_size""",
    (CONNECTED,): """
        pread pread_structured pwrite shutdown flush trim cache zero block_status
        block_status_64 block_status_filter aio_pread aio_pread_structured aio_pwrite
        aio_disconnect aio_flush aio_trim aio_cache aio_zero aio_block_status
        aio_block_status_64 aio_block_status_filter preadv pwritev aio_preadv aio_pwritev
        take_socket take_tls_socket""",
    (NEGOTIATING, CONNECTED): "get_tls_info",
    (CONNECTED, CLOSED, DEAD): "aio_in_flight",
    (CONNECTING, NEGOTIATING, CONNECTED, CLOSED, DEAD): "get_uri",
}
STATES_OF = {name: states for states, names in PERMITTED.items() for name in names.split()}
OWN = ("connect_addresses", "aio_connect_addresses", "preadv", "pwritev", "aio_preadv",
       "aio_pwritev", "take_socket", "take_tls_socket", "get_tls_info",
       "read_tls_credentials", "set_tls_credentials")
CALLBACKS = {"C": COMPLETION, "K": CHUNK, "E": EXTENT, "F": EXTENT64, "L": LIST,
             "M": CONTEXT}
PLAIN = {"i": 0, "u": 0, "b": 0, "s": "text", "U": 512, "z": 512, "a": ["text"]}


def arguments(signature):
    """Plausible arguments for a call, and the callbacks among them."""
    values = [Callback(CALLBACKS[letter]) if letter in CALLBACKS else
              buffer(512) if letter == "p" else PLAIN[letter] for letter in signature[1:]]
    return values, [v for v in values if isinstance(v, Callback)]


# A handle in each state -------------------------------------------------------------------

def newly_created(serve):
    return serve(), Handle()


def connecting(serve):
    server, h = serve(greeting=pieces.stall), Handle()
    h.aio_connect_uri(server.uri())
    h.poll_until(lambda: server.sessions)
    return server, h


def negotiating(serve):
    server, h = serve(), Handle()
    h.set_opt_mode(True)
    h.connect_uri(server.uri())
    return server, h


def connected(serve):
    server, h = serve(), Handle()
    h.connect_uri(server.uri())
    return server, h


def shut_down(serve):
    server, h = connected(serve)
    h.shutdown(0)
    server.wait_for(lambda: server.session().ended)
    return server, h


def dead(serve):
    server, h = serve(greeting=b"not an NBD server"), Handle()
    with pytest.raises(NbdError):
        h.connect_uri(server.uri())
    return server, h


IN_STATE = dict(zip(STATES, (newly_created, connecting, negotiating, connected, shut_down,
                             dead)))


def groups(h):
    """Which of nbd_aio_is_* say yes."""
    names = ("created", "connecting", "negotiating", "ready", "processing", "closed", "dead")
    return [n for n in names if h.call("aio_is_" + n)]


@pytest.mark.parametrize("state, expected", zip(STATES, (
    "created", "connecting", "negotiating", "ready", "closed", "dead")))
def test_exactly_one_group_holds_in_each_state(serve, state, expected):
    _, h = IN_STATE[state](serve)
    assert groups(h) == [expected]


@pytest.mark.parametrize("state, text", [
    (CREATED, "START: Handle after being initially created"),
    (NEGOTIATING, "NEGOTIATING: Connection is ready to negotiate an NBD option"),
    (CONNECTED, "READY: Connection is ready to process NBD commands"),
    (CLOSED, "CLOSED: Connection is closed"),
    (DEAD, "DEAD: Connection is in an unrecoverable error state, can only be closed"),
])
def test_connection_state_names_and_describes_the_state(serve, state, text):
    _, h = IN_STATE[state](serve)
    assert h.connection_state() == text


def test_table_covers_every_call_that_depends_on_the_state():
    checked = set(library().functions) & set(STATES_OF)
    others = set(library().functions) - checked
    assert not [n for n in others if n.startswith(("opt_", "connect_", "aio_opt", "can_"))
                and n != "connection_state"]
    assert len(checked) >= 75


@pytest.mark.parametrize("state", STATES)
def test_a_call_in_the_wrong_state_fails_and_sends_nothing(serve, state):
    server, h = IN_STATE[state](serve)
    before, description = server.received, h.connection_state()
    called = 0
    for name, states in STATES_OF.items():
        if state in states or not library().has(name):
            continue
        values, callbacks = arguments(library().functions[name][1])
        with pytest.raises(NbdError) as e:
            h.call(name, *values)
        prefix = "nbdd_" if name in OWN else "nbd_"
        assert e.value.text.startswith(
            f"{prefix}{name}: invalid state: {h.state()}: the handle must be "
            f"{', or '.join(s for s in STATES if s in states)}: "), name
        assert e.value.errno == (errno.ENOTCONN if state == CREATED else errno.EINVAL), name
        assert all(cb.sound and not cb.calls for cb in callbacks), name
        called += 1
    assert called >= 25
    assert h.connection_state() == description
    assert server.received == before
    h.close()


QUERIES = [n for n, s in STATES_OF.items() if s == (NEGOTIATING, CONNECTED, CLOSED)]


@pytest.mark.parametrize("state", [NEGOTIATING, CONNECTED, CLOSED])
def test_what_was_negotiated_can_be_asked_for(serve, state):
    server, h = IN_STATE[state](serve)
    for name in filter(library().has, QUERIES):
        try:
            h.call(name, *arguments(library().functions[name][1])[0])
        except NbdError as e:
            assert "invalid state" not in e.text


FREE_CALLS = ("get_export_name", "get_tls", "get_opt_mode", "get_strict_mode",
              "get_handshake_flags", "get_handle_name", "get_pread_initialize",
              "get_nr_meta_contexts", "get_package_name", "get_version", "supports_tls",
              "supports_uri", "aio_get_direction", "aio_peek_command_completed",
              "get_debug", "get_private_data", "get_request_structured_replies")


@pytest.mark.parametrize("state, name", itertools.product(STATES, FREE_CALLS))
def test_a_setting_can_be_asked_for_in_every_state(serve, state, name):
    _, h = IN_STATE[state](serve)
    result = h.raw(name)
    if name == "aio_peek_command_completed":    # nothing in flight is an error of its own
        assert result == -1 and "invalid state" not in h.lib.error().text
    else:
        assert result not in (-1, None)


@pytest.mark.parametrize("state", [CREATED, CLOSED, DEAD])
def test_without_a_socket_there_is_no_fd(serve, state):
    _, h = IN_STATE[state](serve)
    with pytest.raises(NbdError) as e:
        h.aio_get_fd()
    assert e.value.errno == errno.EINVAL


@pytest.mark.parametrize("state", [CREATED, NEGOTIATING, CLOSED, DEAD])
def test_notify_where_nothing_is_awaited_is_einval(serve, state):
    _, h = IN_STATE[state](serve)
    for name, number in (("aio_notify_read", 0), ("aio_notify_write", 1)):
        with pytest.raises(NbdError) as e:
            h.call(name)
        assert e.value.errno == errno.EINVAL
        assert f"nbd_{name}: external event {number} is invalid in state {h.state()}" \
            in e.value.text


@pytest.mark.parametrize("state", [CREATED, NEGOTIATING, CLOSED, DEAD])
def test_poll_where_nothing_is_awaited_is_einval(serve, state):
    _, h = IN_STATE[state](serve)
    with pytest.raises(NbdError) as e:
        h.poll(0)
    assert e.value.errno == errno.EINVAL
    assert e.value.text.startswith(f"nbd_poll: nothing to poll for in state {h.state()}")


@pytest.mark.parametrize("state, direction", [
    (CREATED, 0), (NEGOTIATING, 0), (CONNECTED, 1), (CLOSED, 0), (DEAD, 0)])
def test_direction_tells_what_a_state_waits_for(serve, state, direction):
    _, h = IN_STATE[state](serve)
    assert h.aio_get_direction() == direction


@pytest.mark.parametrize("state", [CLOSED, DEAD])
def test_nothing_is_in_flight_once_the_connection_is_over(serve, state):
    _, h = IN_STATE[state](serve)
    assert h.aio_in_flight() == 0


@pytest.mark.parametrize("state", STATES[1:])
def test_a_handle_connects_only_once(serve, state):
    server, h = IN_STATE[state](serve)
    with pytest.raises(NbdError) as e:
        h.connect_uri(server.uri())
    assert e.value.errno == errno.EINVAL
    assert len(server.sessions) == 1


@pytest.mark.parametrize("state", STATES)
def test_a_handle_can_be_closed_in_every_state(serve, state):
    server, h = IN_STATE[state](serve)
    fds = server.sessions and not server.session().ended
    h.close()
    if fds:
        server.wait_for(lambda: server.session().ended)
