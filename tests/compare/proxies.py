"""What stands in front, and certificates."""

from __future__ import annotations

import shutil
import signal
import ssl
import struct

from tests.checklist.servers import make_certificates

from .peers import ASGI, OURS
from .protocols import REFUSALS
from .registry import Answer, no, partly, row, yes
from .servers import PATIENCE, Server, Subject, within

GROUP = "Proxies and TLS"


@row("The client's address behind a proxy on a unix socket")
def forwarded_by_unix_socket(subject: Subject) -> Answer:
    """``X-Forwarded-For`` and ``-Proto`` from the socket, by each interface, with the server's setting or wrapper."""
    path = subject.folder() / "s"
    options = ["--forwarded-allow-ips", "*"] if subject.gunicorn else []
    environ = {"HYBRIDWORKER_FORWARDED_CLIENT": "on"} if subject.name == OURS else {}
    wrapper = {"granian": "with_granian:behind_a_proxy", "hypercorn": "with_hypercorn:behind_a_proxy"}.get(subject.name)
    app = f"tests.compare.apps.{wrapper}" if wrapper else None
    seen = {}
    for interface in (ASGI,) if wrapper else subject.interfaces:
        path.unlink(missing_ok=True)
        with subject.start(interface, app=app, address=str(path), options=options, environ=environ) as server:
            fields = "X-Forwarded-For: 203.0.113.7\r\nX-Forwarded-Proto: https\r\n"
            seen[interface.upper()] = server.request("/client", headers=fields).text
    wrong = {name: text for name, text in seen.items() if text != "203.0.113.7 https"}
    if not wrong:
        return yes("by its wrapper around the application" if wrapper else "")
    return no("; ".join(f"the application sees {text!r}" for text in wrong.values()))


@row("PROXY protocol, of TCP balancers")
def proxy_protocol(subject: Subject) -> Answer:
    """The client's address from a header of version 1, and from one of version 2."""
    options = ["--proxy-protocol", "auto"] if subject.gunicorn and subject.name != "uvicorn-worker" else []
    one = b"PROXY TCP4 203.0.113.7 127.0.0.1 1234 80\r\n"
    addresses = bytes((203, 0, 113, 7, 127, 0, 0, 1)) + struct.pack("!HH", 1234, 80)
    two = b"\r\n\r\n\0\r\nQUIT\n\x21\x11" + struct.pack("!H", len(addresses)) + addresses

    def answered(server: Server, header: bytes) -> str:
        try:
            with server.connect(5) as client:
                client.send(header)
                return client.request("/client").text.split()[0]
        except REFUSALS:
            return "nothing"

    if not options:
        return no("no setting for it")
    with subject.start(options=options, ready=lambda server: answered(server, one) != "nothing") as server:
        seen = [version for version, header in ((1, one), (2, two)) if answered(server, header) == "203.0.113.7"]
    if len(seen) == 2:
        return yes()
    return partly(f"version {seen[0]} only") if seen else no("the address is not used")


@row("nginx's uwsgi_pass")
def uwsgi(subject: Subject) -> Answer:
    """A packet of the uwsgi protocol, with ``--protocol uwsgi``, is answered."""
    if not subject.gunicorn or subject.name == "uvicorn-worker":
        return no("no setting for it")

    def answered(server: Server) -> bool:
        variables = {
            "REQUEST_METHOD": "GET",
            "REQUEST_URI": "/client",
            "PATH_INFO": "/client",
            "QUERY_STRING": "",
            "CONTENT_LENGTH": "",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "SERVER_NAME": "localhost",
            "SERVER_PORT": "80",
            "REMOTE_ADDR": "203.0.113.7",
            "HTTP_HOST": "localhost",
        }
        packet = b"".join(struct.pack("<H", len(text)) + text.encode() for pair in variables.items() for text in pair)
        try:
            with server.connect(3) as client:
                client.send(struct.pack("<BHB", 0, len(packet), 0) + packet)
                return client.response().status == 200
        except REFUSALS:
            return False

    seen = []
    for interface in subject.interfaces:
        try:
            with subject.start(interface, options=["--protocol", "uwsgi"], ready=answered, boot=8):
                seen.append(interface.upper())
        except (TimeoutError, ChildProcessError):
            continue
    if len(seen) == len(subject.interfaces):
        return yes()
    return partly(f"{seen[0]} only") if seen else no("it is not answered")


@row("Renewed certificates without a restart or reload")
def certificates(subject: Subject) -> Answer:
    """The files are replaced by others; new connections have the new ones within 5 s, gunicorn's after USR1."""
    first, second = subject.folder(), subject.folder()
    old, new = make_certificates(first), make_certificates(second)

    def serial(server: Server, authority: str) -> bool:
        """Whether a handshake succeeds with a certificate of this authority."""
        context = ssl.create_default_context(cafile=authority)
        try:
            with context.wrap_socket(server.socket(PATIENCE), server_hostname="localhost"):
                return True
        except ssl.SSLCertVerificationError:
            return False

    with subject.start(certificates=old) as server:
        assert serial(server, old.authority)
        for source, target in ((new.certificate, old.certificate), (new.key, old.key)):
            shutil.copyfile(source, target + ".new")
        for target in (old.key, old.certificate):
            shutil.move(target + ".new", target)
        if subject.gunicorn:
            server.signal(signal.SIGUSR1)
        if within(5, lambda: serial(server, new.authority), 0.3):
            return yes()
    return no("the old one is served on")
