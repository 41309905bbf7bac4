"""Chapter W, second part: messages and endings (asgiref ``specs/www.rst`` 2.5; RFC 6455)."""

from __future__ import annotations

from .case import Case
from .core import logged
from .servers import Options, Subject
from .wire import BINARY, CLOSE, PING, PONG, TEXT, WebSocket, frame


async def accept(case: Case) -> None:
    await case.receive()
    await case.send({"type": "websocket.accept"})


async def events_app(case: Case) -> None:
    """Accept, and note every event up to the disconnect."""
    await accept(case)
    while True:
        event = await case.receive()
        case.note("event", event)
        if event["type"] == "websocket.disconnect":
            break


def payloads(ws: WebSocket) -> list[str | bytes | None]:
    """What messages brought, once the application has ended."""
    ws.run.ended()
    events = [event for event in ws.run.all("event") if event["type"] == "websocket.receive"]
    return [event["text"] if event.get("text") is not None else event.get("bytes") for event in events]


def w10_text_and_binary(subject: Subject) -> None:
    """A text message arrives as str in text, a binary one as bytes in bytes, and never in both."""
    with subject.server.websocket() as ws:
        ws.open(events_app)
        ws.frame(TEXT, "grüße".encode())
        ws.frame(BINARY, b"\x00\xff")
        ws.frame(TEXT)
        ws.frame(BINARY)
        ws.leave()
        assert payloads(ws) == ["grüße", b"\x00\xff", "", b""]
        for event in ws.run.all("event")[:4]:
            assert (event.get("text") is None) != (event.get("bytes") is None)


def w11_fragments_are_joined(subject: Subject) -> None:
    """A fragmented message arrives whole, and control frames amid it are answered."""
    with subject.server.websocket() as ws:
        ws.open(events_app)
        ws.frame(TEXT, b"one ", fin=False)
        ws.frame(PING, b"amid")
        ws.frame(0, b"two ", fin=False)
        assert ws.next() == (PONG, b"amid")
        ws.frame(0, b"three")
        ws.leave()
        assert payloads(ws) == ["one two three"]


async def w12_app(case: Case) -> None:
    await accept(case)
    case.note("event", await case.receive())
    await case.send({"type": "websocket.close"})


def w12_pings_are_answered(subject: Subject) -> None:
    """A ping is answered with its payload, and neither pings nor pongs reach the application."""
    with subject.server.websocket() as ws:
        ws.open(w12_app)
        ws.frame(PING, b"payload")
        assert ws.next() == (PONG, b"payload")
        ws.frame(PONG, b"unasked")
        ws.frame(PING)
        assert ws.next() == (PONG, b"")
        ws.frame(TEXT, b"message")
        assert ws.run.wait("event")["text"] == "message"


def w13_dead_peers_are_closed(subject: Subject) -> None:
    """The server pings, and closes the connection of a peer that does not answer (should)."""
    with subject.start(Options(ping_interval=1)) as server, server.websocket() as ws:
        run = ws.open(events_app)
        opcode, _ = ws.next()
        assert opcode == PING
        event = run.wait("event", 20)
        assert event["type"] == "websocket.disconnect"


async def w14_app(case: Case) -> None:
    await accept(case)
    await case.send({"type": "websocket.send", "text": "text"})
    await case.send({"type": "websocket.send", "bytes": b"bytes"})
    await case.send({"type": "websocket.send", "text": "", "bytes": None})
    await case.send({"type": "websocket.send", "text": None, "bytes": b""})
    case.note("neither", await case.refused({"type": "websocket.send"}))
    case.note("none", await case.refused({"type": "websocket.send", "text": None, "bytes": None}))
    case.note("both", await case.refused({"type": "websocket.send", "text": "a", "bytes": b"b"}))
    await case.send({"type": "websocket.close"})


def w14_send_text_or_bytes(subject: Subject) -> None:
    """websocket.send takes text or bytes, empty ones too; neither or both raises."""
    with subject.server.websocket() as ws:
        ws.open(w14_app)
        assert [ws.message() for _ in range(4)] == [(TEXT, b"text"), (BINARY, b"bytes"), (TEXT, b""), (BINARY, b"")]
        for what in ("neither", "none", "both"):
            assert ws.run.wait(what), f"websocket.send with {what} is taken"


async def w15_default_app(case: Case) -> None:
    await accept(case)
    await case.send({"type": "websocket.close"})


async def w15_given_app(case: Case) -> None:
    await accept(case)
    await case.send({"type": "websocket.close", "code": 3500, "reason": "grüße"})


def w15_close_code_and_reason(subject: Subject) -> None:
    """websocket.close sends its code, 1000 by default, and its reason."""
    for app, expected in ((w15_default_app, (1000, "")), (w15_given_app, (3500, "grüße"))):
        with subject.server.websocket() as ws:
            ws.open(app)
            assert ws.close_code() == expected


def disconnect(subject: Subject, code: int | None, reason: str = "", lost: bool = False) -> dict[str, object]:
    """The websocket.disconnect event that a client's leaving gives."""
    with subject.server.websocket() as ws:
        run = ws.open(events_app)
        if lost:
            ws.sock.close()
        else:
            ws.leave(code, reason)
            ws.close_code()
        event: dict[str, object] = run.wait("event")
        return event


def w16_the_clients_close_code(subject: Subject) -> None:
    """websocket.disconnect has the client's code, 1005 when it gave none, 1006 when the connection is lost."""
    codes = [disconnect(subject, code).get("code") for code in (1000, 1001, 3999, None)]
    codes.append(disconnect(subject, None, lost=True).get("code"))
    assert codes == [1000, 1001, 3999, 1005, 1006], f"the codes are {codes}"


def w17_the_clients_reason(subject: Subject) -> None:
    """websocket.disconnect has the client's reason, and an empty one without."""
    reasons = [disconnect(subject, 1000, "grüße").get("reason"), disconnect(subject, 1000).get("reason")]
    assert reasons == ["grüße", ""], f"the reasons are {reasons}"


async def w18_app(case: Case) -> None:
    await accept(case)
    for _ in range(3):
        try:
            case.note("event", (await case.receive_soon())["type"])
        except Exception:
            case.note("event", "raised")


def w18_one_disconnect(subject: Subject) -> None:
    """After websocket.disconnect receive() repeats it or raises, and never hangs."""
    with subject.server.websocket() as ws:
        ws.open(w18_app)
        ws.leave()
        ws.run.ended()
        first, *later = ws.run.all("event")
    assert first == "websocket.disconnect"
    assert set(later) <= {"websocket.disconnect", "raised"}, f"later it is {later}"


async def w19_app(case: Case) -> None:
    await accept(case)
    await case.released()
    while (event := await case.receive())["type"] != "websocket.disconnect":
        case.note("event", event)
    case.note("event", event)


def w19_messages_before_the_close_are_delivered(subject: Subject) -> None:
    """Messages that came before the close frame are delivered before the disconnect."""
    with subject.server.websocket() as ws:
        ws.open(w19_app)
        ws.send(b"".join(frame(TEXT, b"%d" % number) for number in range(5)) + frame(CLOSE, b"\x03\xe8"))
        ws.run.release()
        assert payloads(ws) == ["0", "1", "2", "3", "4"]


async def w20_app(case: Case) -> None:
    await accept(case)
    await case.send({"type": "websocket.close"})
    await case.refused({"type": "websocket.send", "text": "late"})


async def w20_gone_app(case: Case) -> None:
    await accept(case)
    while (await case.receive())["type"] != "websocket.disconnect":
        pass
    await case.refused({"type": "websocket.send", "text": "late"})
    await case.send({"type": "websocket.send", "text": "late"})


def w20_send_after_the_end(subject: Subject) -> None:
    """send() after the end raises a subclass of OSError, which is not logged as an error."""
    before = len(subject.server.log())
    for app in (w20_app, w20_gone_app):
        with subject.server.websocket() as ws:
            ws.open(app)
            if app is w20_gone_app:
                ws.reset()
            ws.run.ended()
            assert ws.run.all("refused"), f"{app.__name__}: it is taken"
            if app is w20_gone_app:
                assert "OSError" in ws.run.wait("refused"), f"it raises {ws.run.wait('refused')[0]}"
    assert not logged(subject, before, w20_gone_app), "it is logged"


async def w21_app(case: Case) -> None:
    await accept(case)
    raise RuntimeError("after accept")


def w21_exception_after_accept(subject: Subject) -> None:
    """An exception after accept closes with 1011."""
    with subject.server.websocket() as ws:
        ws.open(w21_app)
        code, _ = ws.close_code()
        assert code == 1011, f"it is {code}"


def w22_return_after_accept(subject: Subject) -> None:
    """An application that returns without closing is closed with 1000."""
    with subject.server.websocket() as ws:
        ws.open(accept)
        code, _ = ws.close_code()
        assert code == 1000, f"it is {code}"


def w23_violations_have_their_codes(subject: Subject) -> None:
    """Bad UTF-8 is 1007, a message too large 1009, and a violation of the protocol 1002."""
    huge = bytes([0x82, 0xFF]) + (1 << 40).to_bytes(8, "big") + bytes(4) + b"x" * 1000
    violations = {
        "bad UTF-8": (frame(TEXT, b"\xff\xfe"), 1007),
        "a message of 1 TiB": (huge, 1009),
        "a reserved bit": (frame(TEXT, b"x", rsv=2), 1002),
        "a reserved opcode": (frame(3, b"x"), 1002),
        "an unmasked frame": (frame(TEXT, b"x", masked=False), 1002),
        "a fragmented ping": (frame(PING, b"x", fin=False), 1002),
        "a ping of 126 bytes": (frame(PING, b"x" * 126), 1002),
        "a continuation of nothing": (frame(0, b"x"), 1002),
    }
    for what, (data, expected) in violations.items():
        with subject.server.websocket() as ws:
            ws.open(events_app)
            ws.send(data)
            try:
                code = ws.close_code()[0]
            except (OSError, AssertionError) as exc:
                raise AssertionError(f"{what}: no close frame ({type(exc).__name__})") from exc
            assert code == expected, f"{what}: {code}"


async def w24_app(case: Case) -> None:
    await accept(case)
    await case.released()


def w24_reading_pauses(subject: Subject) -> None:
    """A client that sends faster than the application receives is held back."""
    with subject.server.websocket() as ws:
        ws.open(w24_app)
        assert ws.write_until_blocked(frame(BINARY, b"x" * 65536)), "it took 96 MiB"
        ws.run.release()


async def w25_app(case: Case) -> None:
    await accept(case)
    await case.flood({"type": "websocket.send", "bytes": b"x" * 65536})


def w25_send_waits_for_the_client(subject: Subject) -> None:
    """send() waits while the client does not read."""
    with subject.server.websocket() as ws:
        ws.open(w25_app)
        ws.run.wait("blocked", 30)


def w27_shutdown_is_told_to_both_ends(subject: Subject) -> None:
    """When the server stops, the client gets 1012 or 1001 and the application a disconnect with that code."""
    with subject.start() as server, server.websocket() as ws:
        run = ws.open(events_app)
        server.terminate()
        ws.sock.settimeout(15)
        code, _ = ws.close_code()
        assert code in (1001, 1012), f"the client gets {code}"
        event = run.wait("event")
        assert (event["type"], event.get("code")) == ("websocket.disconnect", code), f"the application gets {event}"
