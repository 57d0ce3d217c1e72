"""The handshake: which options go out, how each answer is taken, old servers, opt mode."""
import errno

import pytest

from tests.harness import nbd_proto as p
from tests.harness import pieces
from tests.harness.nbd_ctypes import CONTEXT, Callback, NbdError
from tests.harness.nbd_proto import Flag, Info, Opt, Rep
from tests.harness.script_server import Export, Script
from tests.proto.marks import better, needs


def numbers(server):
    return [o.number for o in server.options() if o.number != Opt.EXTENDED_HEADERS]


@pytest.fixture
def negotiating(serve, handle):
    """negotiating(script fields...): (server, handle in opt mode)."""
    def connect(settings=None, **fields):
        server, h = serve(**fields), handle(opt_mode=True, **(settings or {}))
        h.connect_uri(server.uri())
        return server, h
    return connect


# What is sent -----------------------------------------------------------------------------

def test_structured_replies_and_go_are_asked_for(ready):
    server, h = ready
    assert server.session().flags == p.FLAG_FIXED_NEWSTYLE | p.FLAG_NO_ZEROES
    assert numbers(server) == [Opt.STRUCTURED_REPLY, Opt.GO]
    assert h.get_structured_replies_negotiated() == 1
    assert h.get_protocol() == "newstyle-fixed"


def test_meta_contexts_are_asked_for_when_wanted(connected):
    server, h = connected({"meta": ["base:allocation", "x:y"]})
    assert numbers(server) == [Opt.STRUCTURED_REPLY, Opt.SET_META_CONTEXT, Opt.GO]
    assert p.parse_meta(server.options()[-2].data) == (b"", [b"base:allocation", b"x:y"])
    assert h.can_meta_context("base:allocation") == 1
    assert h.can_meta_context("x:y") == 0


def test_structured_replies_are_not_asked_for_when_unwanted(connected):
    server, h = connected({"request_structured_replies": False,
                           "meta": ["base:allocation"]})
    assert numbers(server) == [Opt.GO]
    assert h.get_structured_replies_negotiated() == 0
    assert h.can_meta_context("base:allocation") == 0


@pytest.mark.parametrize("settings, infos", [
    ({}, {Info.BLOCK_SIZE}),
    ({"request_block_size": False}, set()),
    ({"full_info": True}, {Info.BLOCK_SIZE, Info.NAME, Info.DESCRIPTION}),
    ({"full_info": True, "request_block_size": False}, {Info.NAME, Info.DESCRIPTION})])
def test_go_asks_for_the_information_that_is_set(connected, settings, infos):
    server, _ = connected(settings)
    name, asked = p.parse_go(server.options()[-1].data)
    assert name == b"" and set(asked) == infos


@pytest.mark.parametrize("name", ["disk", "ünïcode", "with space", "a/b", "n" * 4096])
def test_export_name_is_sent_as_it_is(serve, handle, name):
    server, h = serve(exports={name: Export(12345)}), handle(export_name=name)
    h.connect_unix(server.path)
    assert p.parse_go(server.options()[-1].data)[0] == name.encode()
    assert h.get_size() == 12345
    assert h.get_export_name() == name


@pytest.mark.parametrize("flags, sent", [(3, 3), (1, 1)])
def test_client_flags_are_those_set_and_offered(connected, flags, sent):
    server, h = connected({"handshake_flags": flags})
    assert server.session().flags == sent
    assert h.read(0, 16) == bytes(16)


def test_client_flags_that_the_server_did_not_offer_are_not_sent(connected):
    server, _ = connected(greeting=p.newstyle_hello(p.FLAG_FIXED_NEWSTYLE))
    assert server.session().flags == p.FLAG_FIXED_NEWSTYLE


def test_unknown_handshake_flags_of_the_server_are_ignored(connected):
    server, _ = connected(greeting=p.newstyle_hello(0xFFFF))
    assert server.session().flags == 3


@pytest.mark.parametrize("wanted", [0, 1, 2, 3])
@pytest.mark.parametrize("offered", [0, 1, 2, 3, None])
def test_handshake_flags_are_those_agreed_on_after_the_hello(connected, wanted, offered):
    how = {"style": "oldstyle"} if offered is None else {
        "style": "fixed" if offered & 1 else "newstyle",
        "greeting": p.newstyle_hello(offered)}
    server, h = connected({"handshake_flags": wanted}, **how)
    assert h.get_handshake_flags() == wanted & (offered or 0)
    assert server.session().flags == (None if offered is None else wanted & offered)


# Old servers ------------------------------------------------------------------------------

@pytest.mark.parametrize("flags", [0, 1, 2, 3])
def test_oldstyle(connected, flags):
    server, h = connected({"handshake_flags": flags, "opt_mode": True}, style="oldstyle",
                          exports=Export(54321, Flag.HAS_FLAGS | Flag.READ_ONLY))
    assert h.aio_is_ready() and h.get_protocol() == "oldstyle"
    assert (h.get_size(), h.is_read_only()) == (54321, 1)
    assert h.get_structured_replies_negotiated() == 0
    assert server.session().flags is None
    assert h.read(0, 8) == bytes(8)


@pytest.mark.parametrize("flags", [0, 1, 2, 3])
@pytest.mark.parametrize("style", ["newstyle", "fixed"])
def test_newstyle_that_is_not_fixed_uses_export_name(connected, style, flags):
    if style == "fixed":
        flags &= ~1                     # without the client's flag it is not fixed
    server, h = connected({"handshake_flags": flags}, style=style, exports=Export(999424))
    assert server.session().flags == flags & 2
    assert [(o.number, o.data) for o in server.options()] == [(Opt.EXPORT_NAME, b"")]
    assert h.get_protocol() == "newstyle"
    assert h.get_size() == 999424 and h.can_trim() == 1
    h.write(100, b"data")
    assert h.read(100, 4) == b"data"


@pytest.mark.parametrize("flags", [1, 3])
def test_server_without_go_is_asked_by_export_name(connected, flags):
    server, h = connected({"handshake_flags": flags},
                          option={Opt.GO: pieces.option_error(Rep.ERR_UNSUP)})
    assert numbers(server) == [Opt.STRUCTURED_REPLY, Opt.GO, Opt.EXPORT_NAME]
    assert h.get_protocol() == "newstyle-fixed"
    assert h.get_size() == 1 << 20
    assert h.read(0, 8) == bytes(8)


def test_unknown_export_closes_the_connection_without_go(serve, handle):
    server = serve(exports={"other": Export()},
                   option={Opt.GO: pieces.option_error(Rep.ERR_UNSUP)})
    with pytest.raises(NbdError):
        handle().connect_uri(server.uri("missing"))


@pytest.mark.parametrize("code", [c for n, c in vars(Rep).items() if n.startswith("ERR_")
                                  and n not in ("ERR_SHUTDOWN", "ERR_TLS_REQD")])
@pytest.mark.parametrize("option", [Opt.STRUCTURED_REPLY, Opt.SET_META_CONTEXT])
def test_server_that_refuses_an_extra_is_used_without_it(connected, option, code):
    server, h = connected({"meta": ["base:allocation"]},
                          option={option: pieces.option_error(code, b"no")})
    assert h.can_meta_context("base:allocation") == 0
    assert h.get_structured_replies_negotiated() == (option != Opt.STRUCTURED_REPLY)
    assert h.read(0, 8) == bytes(8)


# What the server says of the export -------------------------------------------------------

FLAG_QUERIES = {
    "is_read_only": Flag.READ_ONLY, "can_flush": Flag.SEND_FLUSH, "can_fua": Flag.SEND_FUA,
    "is_rotational": Flag.ROTATIONAL, "can_trim": Flag.SEND_TRIM,
    "can_zero": Flag.SEND_WRITE_ZEROES, "can_df": Flag.SEND_DF,
    "can_multi_conn": Flag.CAN_MULTI_CONN, "can_cache": Flag.SEND_CACHE,
    "can_fast_zero": Flag.SEND_FAST_ZERO}


@pytest.mark.parametrize("query, flag", FLAG_QUERIES.items())
def test_transmission_flag_is_told(connected, query, flag):
    expected = {query}
    if query == "can_fast_zero":        # which means nothing without WRITE_ZEROES
        flag |= Flag.SEND_WRITE_ZEROES
        expected.add("can_zero")
    _, h = connected(exports=Export(flags=Flag.HAS_FLAGS | flag))
    assert {q for q in FLAG_QUERIES if h.call(q)} == expected


def test_no_flags_are_told_without_any(connected):
    _, h = connected(exports=Export(flags=Flag.HAS_FLAGS))
    assert not any(h.call(q) for q in FLAG_QUERIES)


@pytest.mark.parametrize("advertised, told", [
    (None, [0, 0, 0]), ((1, 4096, 65536), [1, 4096, 65536]),
    ((512, 512, 0xFFFFFFFF), [512, 512, 0xFFFFFFFF]),
    ((4096, 1 << 25, 1 << 25), [4096, 1 << 25, 1 << 25])])
def test_block_sizes_are_told(connected, advertised, told):
    _, h = connected(exports=Export(1 << 30, block_size=advertised))
    assert [h.get_block_size(i) for i in range(3)] == told


@pytest.mark.parametrize("nonsense", [
    (0, 0, 0), (3, 4096, 65536), (512, 256, 1024), (512, 4096, 1000), (512, 5000, 1 << 20),
    (1 << 20, 1 << 20, 1 << 20)])
def test_nonsensical_block_sizes_are_ignored(connected, nonsense):
    _, h = connected(exports=Export(block_size=nonsense))
    assert [h.get_block_size(i) for i in range(3)] == [0, 0, 0]
    assert h.read(1, 3) == bytes(3)


def test_name_and_description_are_told_when_asked_for(connected):
    export = Export(description="a dïsk", canonical_name="real name")
    _, h = connected({"full_info": True}, exports=export)
    assert h.get_canonical_export_name() == "real name"
    assert h.get_export_description() == "a dïsk"


def test_information_that_nobody_asked_for_or_knows_is_skipped(connected):
    def more(session, option):
        return (p.info_text(option.number, 9999, b"future") +
                p.info_text(option.number, Info.NAME, b"unasked") + session.usual(option))
    _, h = connected(option={Opt.GO: more})
    assert h.get_size() == 1 << 20


@pytest.mark.parametrize("size", [0, 1, 511, (1 << 63) - 1])
def test_any_size_up_to_63_bits_is_told(connected, size):
    _, h = connected(exports=Export(size))
    assert h.get_size() == size


def test_each_connection_learns_the_export_anew(serve, handle):
    server = serve(Script(exports=Export(4096)), Script(exports=Export(8192)),
                   Script(exports=Export(8192, Flag.HAS_FLAGS | Flag.READ_ONLY)),
                   Script(exports={}))
    seen = []
    for _ in range(3):
        h = handle()
        h.connect_uri(server.uri())
        seen.append((h.get_size(), h.is_read_only()))
    assert seen == [(4096, 0), (8192, 0), (8192, 1)]
    with pytest.raises(NbdError) as e:
        handle().connect_uri(server.uri())
    assert e.value.errno == errno.ENOENT


# Refusals ---------------------------------------------------------------------------------

REFUSALS = {Rep.ERR_UNKNOWN: errno.ENOENT, Rep.ERR_INVALID: errno.EINVAL,
            Rep.ERR_SHUTDOWN: errno.ESHUTDOWN, Rep.ERR_BLOCK_SIZE_REQD: errno.EINVAL,
            Rep.ERR_TOO_BIG: errno.EINVAL, Rep.ERR_TLS_REQD: errno.ENOTSUP}


@pytest.mark.parametrize("code, number", REFUSALS.items())
def test_refused_go_gives_its_errno(serve, handle, code, number):
    server, h = serve(option={Opt.GO: pieces.option_error(code, b"because")}), handle()
    with pytest.raises(NbdError) as e:
        h.connect_uri(server.uri())
    assert e.value.errno == number
    assert h.state() == "DEAD"


def test_unknown_export_is_named(serve, handle):
    server, h = serve(), handle()
    with pytest.raises(NbdError) as e:
        h.connect_uri(server.uri("missing"))
    assert "export" in e.value.text and "'missing'" in e.value.text


@better("the other leaves out what the server said")
@pytest.mark.parametrize("name", ["connect_uri", "opt_go", "opt_info", "list"])
def test_server_s_explanation_is_part_of_the_error(serve, handle, name):
    refuse = pieces.option_error(Rep.ERR_POLICY, b"not before \x1b[1mnoon")
    server = serve(option={Opt.GO: refuse, Opt.INFO: refuse, Opt.LIST: refuse})
    h = handle(opt_mode=name != "connect_uri")
    with pytest.raises(NbdError) as e:
        h.connect_uri(server.uri())
        getattr(h, name)()
    assert "not before" in e.value.text and "noon" in e.value.text
    assert "\x1b" not in e.value.text


@needs("get_option_reply")
@pytest.mark.parametrize("code", [c for n, c in vars(Rep).items() if n.startswith("ERR_")])
def test_code_of_a_refused_option_can_be_asked_for(negotiating, code):
    _, h = negotiating(option={Opt.LIST: pieces.option_error(code, b"no")})
    with pytest.raises(NbdError):
        h.list()
    assert h.get_option_reply() == code


@needs("get_option_reply")
def test_code_of_a_refused_connect_can_be_asked_for(serve, handle):
    server, h = serve(exports={}), handle()
    with pytest.raises(NbdError):
        h.connect_uri(server.uri())
    assert h.get_option_reply() == Rep.ERR_UNKNOWN


# Opt mode ---------------------------------------------------------------------------------

def test_opt_mode_stops_before_the_export(negotiating):
    server, h = negotiating()
    assert h.aio_is_negotiating()
    assert numbers(server) == [Opt.STRUCTURED_REPLY]
    with pytest.raises(NbdError) as e:
        h.get_size()
    assert e.value.errno == errno.EINVAL
    assert "server has not returned export size" in e.value.text


def test_info_tells_the_export_without_going_there(negotiating):
    server, h = negotiating(exports={"": Export(1000), "b": Export(2000)})
    h.opt_info()
    assert h.get_size() == 1000
    h.set_export_name("b")
    h.opt_info()
    assert h.get_size() == 2000 and h.aio_is_negotiating()
    h.opt_go()
    assert h.aio_is_ready() and h.get_size() == 2000


@pytest.mark.parametrize("option", ["opt_info", "opt_go"])
def test_refused_export_leaves_room_for_another(negotiating, option):
    server, h = negotiating(exports={"b": Export(2000)})
    with pytest.raises(NbdError) as e:
        h.call(option)
    assert e.value.errno == errno.ENOENT
    assert h.aio_is_negotiating()
    with pytest.raises(NbdError):
        h.get_size()
    h.set_export_name("b")
    h.call(option)
    assert h.get_size() == 2000


def test_what_an_earlier_info_said_is_forgotten_when_the_next_fails(negotiating):
    _, h = negotiating(exports={"": Export(1000)})
    h.opt_info()
    h.set_export_name("missing")
    with pytest.raises(NbdError):
        h.opt_info()
    with pytest.raises(NbdError):
        h.get_size()


def test_list_gives_names_and_descriptions_in_order(negotiating):
    exports = {"b": Export(description="second"), "a": Export(), "": Export(description="ü")}
    _, h = negotiating(exports=exports)
    assert h.list() == [("b", "second"), ("a", ""), ("", "ü")]
    assert h.list() == [("b", "second"), ("a", ""), ("", "ü")]


def test_empty_list_is_no_error(negotiating):
    _, h = negotiating(exports={})
    assert h.list() == []


@pytest.mark.parametrize("code", [Rep.ERR_UNSUP, Rep.ERR_POLICY])
def test_refused_list_leaves_the_handle_usable(negotiating, code):
    server, h = negotiating(option={Opt.LIST: pieces.option_error(code, b"no")})
    with pytest.raises(NbdError) as e:
        h.list()
    assert e.value.text.startswith("nbd_opt_list: ")
    h.opt_go()
    assert h.aio_is_ready()


def test_list_refused_after_some_entries_is_an_error(negotiating):
    _, h = negotiating(option={Opt.LIST: lambda s, o: p.rep_server(b"one")
                               + p.option_reply(Opt.LIST, Rep.ERR_POLICY)})
    with pytest.raises(NbdError):
        h.list()
    assert h.aio_is_negotiating()


@better("the other gives one text and errno for both")
def test_forbidden_list_and_unknown_list_are_told_apart(serve, handle):
    texts = []
    for code in (Rep.ERR_POLICY, Rep.ERR_UNSUP):
        server, h = serve(option={Opt.LIST: pieces.option_error(code)}), handle(opt_mode=True)
        h.connect_uri(server.uri())
        with pytest.raises(NbdError) as e:
            h.list()
        texts.append(e.value.text)
    assert "policy" in texts[0].lower() and "policy" not in texts[1].lower()


@pytest.mark.parametrize("style", ["newstyle", "fixed"])
def test_options_need_fixed_newstyle(negotiating, style):
    server, h = negotiating({"handshake_flags": 2 if style == "fixed" else 3}, style=style)
    for name, extra in (("opt_info", ()), ("list", ()),
                        ("opt_list_meta_context", (Callback(CONTEXT),))):
        with pytest.raises(NbdError) as e:
            getattr(h, name)(*extra)
        assert e.value.errno == errno.ENOTSUP
    h.opt_go()
    assert numbers(server) == [Opt.EXPORT_NAME]
    assert h.read(0, 8) == bytes(8)


def test_options_in_any_order(negotiating):
    server, h = negotiating(exports={"": Export(), "x": Export(4096)})
    h.list()
    h.opt_info()
    h.opt_list_meta_context(Callback(CONTEXT))
    h.set_export_name("x")
    h.list()
    h.opt_info()
    h.opt_go()
    assert numbers(server) == [Opt.STRUCTURED_REPLY, Opt.LIST, Opt.INFO,
                               Opt.LIST_META_CONTEXT, Opt.LIST, Opt.INFO, Opt.GO]
    assert h.get_size() == 4096


@needs("opt_structured_reply", "opt_set_meta_context", "set_request_meta_context")
def test_options_by_hand(serve, handle):
    server = serve()
    h = handle(opt_mode=True, request_structured_replies=False)
    h.connect_uri(server.uri())
    assert h.get_structured_replies_negotiated() == 0
    assert h.opt_structured_reply() == 1
    assert h.get_structured_replies_negotiated() == 1
    h.add_meta_context("base:allocation")
    h.set_request_meta_context(False)
    seen = Callback(CONTEXT)
    assert h.opt_set_meta_context(seen) == 1
    assert seen.calls == [b"base:allocation"] and seen.sound
    assert h.can_meta_context("base:allocation") == 1
    h.opt_go()
    assert numbers(server) == [Opt.STRUCTURED_REPLY, Opt.SET_META_CONTEXT, Opt.GO]
    assert h.can_meta_context("base:allocation") == 1


@needs("opt_structured_reply")
def test_refused_structured_replies_are_no_error(serve, handle):
    server, h = serve(structured=False), handle(opt_mode=True)
    h.connect_uri(server.uri())
    assert h.opt_structured_reply() == 0
    assert h.aio_is_negotiating()


@needs("opt_starttls")
def test_starttls_that_cannot_be_is_refused_cleanly(negotiating):
    _, h = negotiating()
    try:
        assert h.opt_starttls() == 0
    except NbdError as e:
        assert e.errno == errno.ENOTSUP
    assert h.aio_is_negotiating()
    h.opt_go()
    assert h.read(0, 8) == bytes(8)


def test_required_tls_is_not_forgone(serve, handle):
    server, h = serve(), handle(tls=2)
    with pytest.raises(NbdError) as e:
        h.connect_uri(server.uri())
    assert e.value.errno == errno.ENOTSUP
    assert "TLS" in e.value.text and h.aio_is_dead()
    assert Opt.GO not in numbers(server)


def test_allowed_tls_falls_back_to_plain(serve, handle):
    server, h = serve(), handle(tls=1)
    h.connect_uri(server.uri())
    assert h.get_tls_negotiated() == 0
    assert h.read(0, 8) == bytes(8)
