"""
Peer: the other end of one connection, whichever version of HTTP it speaks.

Its address and TLS, what a PROXY header said of the client behind it, and what it is believed. Made
when the connection is. Event loop side only.

Invariant: the address is that of the socket, also where a PROXY header named another one. Trust
depends on it.
"""

from __future__ import annotations

import asyncio
from typing import Any

from ..cache import remember
from .accepted import Accepted
from .context import WorkerContext
from .forwarded import FieldPolicy, trusts
from .proxyheader import ProxyHeader
from .scope import http_template, normal_address
from .tls import tls_environ, tls_extension


class Peer:
    """
    Who is at the other end.

    ``template`` holds what all scopes of the connection say.
    """

    __slots__ = ("address", "announced", "policy", "prefixed", "proxied", "proxy", "settings", "template", "tls")

    def __init__(self, transport: asyncio.Transport, context: WorkerContext, sock: Accepted | None = None) -> None:
        self.settings = settings = context.settings
        #: of the socket: a tuple, or what a unix socket has
        self.address: Any = transport.get_extra_info("peername") if sock is None else sock.address
        self.tls: dict[str, Any] | None = None
        self.template = self._template(transport, sock)
        self.template["client"] = normal_address(self.address)
        if not transport.can_write_eof():
            self._encrypted(transport, context)
        #: until the end of the PROXY header has come
        self.proxy = None if settings.proxy_protocol == "off" else ProxyHeader(settings, self.address)
        self.announced: tuple[str, int] | None = None  #: the client that a PROXY header named
        self.proxied: dict[str, str] | None = None  #: what else it said, for environ
        self.policy: FieldPolicy | None = None  #: made when a field first asks for it
        self.prefixed = False  #: a request has named a prefix of the deployment: a path alone says nothing

    def _template(self, transport: asyncio.Transport, sock: Accepted | None) -> dict[str, Any]:
        """What all scopes of the connection say, but for the client; what is the same for many is made once."""
        name = None if sock is None else sock.name
        if name is None:
            name = transport.get_extra_info("sockname")
        shared = None if sock is None else sock.templates.get(name)
        if shared is not None:
            return shared.copy()
        made = http_template("http", None, normal_address(name, server=True), self.settings.root_path)
        return made if sock is None else remember(sock.templates, name, made).copy()

    def _encrypted(self, transport: asyncio.Transport, context: WorkerContext) -> None:
        """The connection has no half-close, so it may be one of TLS: note what the handshake has said."""
        ssl_object = transport.get_extra_info("ssl_object")
        if ssl_object is not None:
            self.tls = tls_extension(ssl_object, context.server_cert)
            self.template["scheme"] = "https"
            self.template["hybridworker.tls"] = tls_environ(ssl_object, self.tls)

    def strip_proxy_header(self, proxy: ProxyHeader, data: bytes) -> bytes:
        """Take the PROXY header off the first bytes; returns those behind it, or none while it is incomplete."""
        rest = proxy.feed(data)
        if rest is None:
            return b""
        self.proxy = None
        if proxy.client is not None:
            self.template["client"] = self.announced = proxy.client
            self.proxied = proxy.environ
        return rest

    def judge(self) -> FieldPolicy:
        """What the fields of this peer may do: one decision for the whole connection."""
        if self.policy is None:
            trusted = trusts(self.settings.forwarded_networks, self.address)
            self.policy = FieldPolicy(self.settings, trusted, self.announced)
        return self.policy
