"""``handshake.py``: the HTTP before the first frame, as plain values."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from hybridworker.connection.errorpages import REFUSAL_FIELDS
from hybridworker.errors import InvalidMessage, ProtocolError, ResponseError
from hybridworker.websocket.handshake import (
    Denial,
    Upgrade,
    accept_key,
    accept_response,
    check_handshake,
    refusal,
    values,
)
from tests.fakes import FakeTransport

KEY = b"dGhlIHNhbXBsZSBub25jZQ=="
FIELDS = b"Server: gunicorn\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\n"


def scope(*headers: tuple[bytes, bytes], version: bytes | None = b"13", key: bytes | None = KEY) -> dict[str, Any]:
    fields = [(b"sec-websocket-version", version), (b"sec-websocket-key", key)]
    return {"headers": [field for field in fields if field[1] is not None] + list(headers)}


# -- the request


def test_a_good_handshake_gives_its_key() -> None:
    """And the response proves that it was understood (the example of RFC 6455 1.3)."""
    assert check_handshake(b"GET", scope()) == KEY
    assert accept_key(KEY) == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


@pytest.mark.parametrize("version", [b"12", b"8", b"0", b"14", b"013", b"13, 8", b"", None])
def test_w26_another_version_is_426(version: bytes | None) -> None:
    """RFC 6455 4.4: with the version that is spoken."""
    with pytest.raises(ProtocolError) as caught:
        check_handshake(b"GET", scope(version=version))
    assert caught.value.status == 426
    assert b"Sec-WebSocket-Version: 13\r\n" in REFUSAL_FIELDS[426]
    assert b"Upgrade: websocket\r\n" in REFUSAL_FIELDS[426]  # RFC 9110 15.5.22


def test_w26_two_versions_are_426() -> None:
    """One of them might be 13."""
    with pytest.raises(ProtocolError) as caught:
        check_handshake(b"GET", scope((b"sec-websocket-version", b"13")))
    assert caught.value.status == 426


@pytest.mark.parametrize(
    "key",
    [None, b"", b"short", KEY[:-1], KEY + b"=", b"=" + KEY, KEY[:-2] + b"AA", b"!" + KEY[1:], KEY + b"\n", KEY * 2],
)
def test_w26_a_missing_or_bad_key_is_400(key: bytes | None) -> None:
    """It stands for 16 bytes in base64."""
    with pytest.raises(ProtocolError) as caught:
        check_handshake(b"GET", scope(key=key))
    assert caught.value.status == 400


def test_w26_two_keys_are_400() -> None:
    """RFC 6455 11.3.1: not more than once."""
    with pytest.raises(ProtocolError) as caught:
        check_handshake(b"GET", scope((b"sec-websocket-key", KEY)))
    assert caught.value.status == 400


@pytest.mark.parametrize("method", [b"POST", b"HEAD", b"OPTIONS"])
def test_w26_another_method_is_405(method: bytes) -> None:
    """With the one that is allowed."""
    with pytest.raises(ProtocolError) as caught:
        check_handshake(method, scope())
    assert caught.value.status == 405
    assert REFUSAL_FIELDS[405] == b"Allow: GET\r\n"


@pytest.mark.parametrize("status", [400, 403, 405, 426, 500])
def test_a_refusal_is_a_whole_answer(status: int) -> None:
    """With its fields, and a page that HEAD does not get (RFC 9110 9.3.2)."""
    answer = refusal(status, FIELDS)
    assert answer.startswith(b"HTTP/1.1 %d " % status)
    assert REFUSAL_FIELDS.get(status, b"") in answer
    head, _, page = answer.partition(b"\r\n\r\n")
    assert b"Content-Length: %d" % len(page) in head
    assert b"Connection: close" in head
    assert page
    assert refusal(status, FIELDS, b"HEAD") == head + b"\r\n\r\n"


def test_values_are_those_of_all_lines() -> None:
    """In order."""
    request = scope((b"x-a", b"1"), (b"x-b", b"2"), (b"x-a", b"3"))
    assert values(request, b"x-a") == [b"1", b"3"]
    assert values(request, b"x-c") == []


# -- the 101


def accept(extensions: bytes = b"", **message: Any) -> bytes:
    return accept_response(KEY, FIELDS, extensions, {"type": "websocket.accept", **message})[0]


HEAD = (
    b"HTTP/1.1 101 Switching Protocols\r\n" + FIELDS + b"Upgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
)


def test_w5_a_plain_accept() -> None:
    """All keys of the message are optional, None counts as missing, "" as no subprotocol."""
    assert accept() == HEAD + b"\r\n"
    assert accept(subprotocol=None, headers=None) == HEAD + b"\r\n"
    assert accept(subprotocol="", headers=[]) == HEAD + b"\r\n"


def test_w5_subprotocol_extensions_and_headers_in_order() -> None:
    """The application's fields are kept as they are, repeats too, from any iterable."""
    headers = [(b"X-A", b"1"), (b"set-cookie", b"a=1"), (b"x-a", b"2")]
    head, kept = accept_response(
        KEY, FIELDS, b"permessage-deflate", {"subprotocol": "chat.v2", "headers": iter(headers)}
    )
    assert kept == headers
    assert head == (
        HEAD + b"Sec-WebSocket-Protocol: chat.v2\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"
        b"X-A: 1\r\nset-cookie: a=1\r\nx-a: 2\r\n\r\n"
    )


@pytest.mark.parametrize(
    "name",
    [b"sec-websocket-protocol", b"Sec-WebSocket-Accept", b"sec-websocket-extensions", b"SEC-WEBSOCKET-X", b"Upgrade"],
)
def test_w6_fields_of_the_handshake_are_refused(name: bytes) -> None:
    """The subprotocol has a key of its own; the others are the server's."""
    with pytest.raises(InvalidMessage, match="subprotocol"):
        accept(headers=[(name, b"x")])


def test_framing_fields_are_left_out() -> None:
    """RFC 9110 8.6: a 101 has no Content-Length; Connection and Transfer-Encoding are the server's."""
    headers = [(b"Content-Length", b"5"), (b"connection", b"close"), (b"transfer-encoding", b"chunked"), (b"a", b"b")]
    assert accept(headers=headers) == HEAD + b"a: b\r\n\r\n"


def test_the_applications_date_and_server_win() -> None:
    """There are never two."""
    head = accept(headers=[(b"Server", b"mine"), (b"date", b"now")])
    assert head.count(b"Server:") == 1
    assert b"Server: mine\r\ndate: now\r\n" in head
    assert b"1970" not in head


@pytest.mark.parametrize("subprotocol", ["a b", "a,b", "a\r\nx: y", "grüße", "\ud800", b"chat", 5])
def test_a_subprotocol_is_a_token(subprotocol: object) -> None:
    """RFC 6455 4.1."""
    with pytest.raises(InvalidMessage, match="token"):
        accept(subprotocol=subprotocol)


@pytest.mark.parametrize(
    "headers", [[("a", "b")], [(b"a", b"b\r\nc: d")], [(b"a b", b"c")], [(b"a", 5)], [(b"a",)], 5, [5], [("a", b"b")]]
)
def test_c8_bad_headers_are_refused(headers: object) -> None:
    """Wrong types, and line ends in values."""
    with pytest.raises(InvalidMessage):
        accept(headers=headers)
    with pytest.raises(InvalidMessage):
        Denial({"status": 403, "headers": headers})


# -- denials


def deny(status: int, headers: list[tuple[bytes, bytes]], *parts: bytes) -> bytes:
    transport = FakeTransport()
    context: Any = SimpleNamespace(clock=SimpleNamespace(fields=FIELDS))
    opening = Upgrade(context, transport, scope(), b"GET")
    opening.begin_denial({"status": status, "headers": headers})
    last = len(parts) - 1
    for index, part in enumerate(parts):
        opening.deny(part, index < last)
    return transport.sent


def test_x1_a_denial_in_one_part() -> None:
    """Exactly that response, with its length."""
    assert deny(401, [(b"X-A", b"1")], b"nope") == (
        b"HTTP/1.1 401 Unauthorized\r\n" + FIELDS + b"Connection: close\r\nX-A: 1\r\nContent-Length: 4\r\n\r\nnope"
    )


def test_x2_a_denial_in_parts() -> None:
    """With its length as announced; without one it ends with the connection."""
    head = b"HTTP/1.1 403 Forbidden\r\n" + FIELDS + b"Connection: close\r\n"
    length = (b"Content-Length", b"6")
    assert deny(403, [length], b"one", b"two") == head + b"Content-Length: 6\r\n\r\nonetwo"
    assert deny(403, [length], b"onetwo") == head + b"Content-Length: 6\r\n\r\nonetwo"
    assert deny(403, [], b"one", b"two") == head + b"\r\nonetwo"
    assert deny(403, [], b"", b"", b"two", b"") == head + b"\r\ntwo"


@pytest.mark.parametrize("parts", [(b"toolong",), (b"four", b"more"), (b"few",), (b"on", b"e"), (b"",)])
def test_x2_a_length_that_is_not_kept_raises(parts: tuple[bytes, ...]) -> None:
    """Before the wrong part is written."""
    with pytest.raises(ResponseError, match="Content-Length"):
        deny(403, [(b"content-length", b"6")], *parts)


@pytest.mark.parametrize("status", [204, 304])
def test_a_denial_without_content(status: int) -> None:
    """RFC 9110 6.4.1; a 204 has no Content-Length either (8.6)."""
    answer = deny(status, [(b"content-length", b"5")], b"12345")
    assert answer.endswith(b"\r\n\r\n")
    assert (b"content-length" in answer) == (status == 304)


def test_a_denial_counts_what_is_sent() -> None:
    """Of its body, for the access log."""
    for status, sent in ((403, 6), (304, 0)):
        denial = Denial({"status": status})
        denial.part(b"one", True)
        denial.part(memoryview(b"two"), False)
        assert denial.sent == sent
    with pytest.raises(InvalidMessage):
        Denial({"status": 403}).part("text", False)


@pytest.mark.parametrize("status", [None, "403", 101, 199, 1000, True, 403.0])
def test_a_denial_has_a_final_status(status: object) -> None:
    """An int from 200 to 999."""
    with pytest.raises(InvalidMessage, match="status"):
        Denial({"status": status})


def test_a_denial_with_date_and_server() -> None:
    """As everywhere: the application's win."""
    answer = deny(403, [(b"server", b"mine")], b"")
    assert answer.lower().count(b"server:") == 1
    assert b"Date: Thu" in answer
