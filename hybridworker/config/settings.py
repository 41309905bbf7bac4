"""
Settings: gunicorn's configuration and our own variables, read once, typed, frozen.

:meth:`Settings.from_gunicorn` runs twice: in the master, through :func:`check`, so that a mistake stops the boot with
one line; and in each worker after the fork, because a reload brings a new ``cfg`` without a new check. No loop, no
thread, no side effect. :mod:`.variables` and :mod:`.gunicornsettings` are the documentation of the configuration.

Invariant: every conversion ("0 means no limit", lower-case names, clamping) happens here, so that a field can be used
as it is. A timeout that is turned off by 0 is stored as ``math.inf``, so ``now - since > timeout`` works without a
special case. Exceptions that keep the 0 are marked "0 = off" at their fields.
"""

from __future__ import annotations

import ipaddress
import math
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import gunicorn

from ..errors import ConfigurationError
from .gunicornsettings import SETTINGS, Fate, is_changed, protocol_of
from .variables import near_misses, read_variables

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: gunicorn's own ceilings; its WSGI workers clamp to them.
MAX_REQUEST_LINE = 8190
MAX_FIELDS = 32768
#: What "unlimited" (0) means for one line. gunicorn's C parsers use the same bound for the request line.
UNLIMITED = 1024 * 1024
#: Settings of HTTP/2 that are taken as they are.
HTTP2 = ("max_concurrent_streams", "initial_window_size", "max_frame_size")
#: Member of http_protocols -> its name in ALPN.
ALPN = {"h1": "http/1.1", "h2": "h2"}
#: The most that the fields of one head may take besides the longest one, however high the limits are.
MAX_OTHER_FIELDS = 4 * 1024 * 1024

#: gunicorn's settings that need no conversion.
AS_THEY_ARE = (
    "certfile",
    "keyfile",
    "ca_certs",
    "ciphers",
    "permit_unconventional_http_method",
    "casefold_http_method",
    "permit_unconventional_http_version",
    "strip_header_spaces",
    "permit_obsolete_folding",
)


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)  # which takes 5 ms to make for so many
class Settings:
    """Effective values: clamped and converted. Each comment names the setting where the field's name does not."""

    # Application and concurrency
    interface: str  #: HYBRIDWORKER_INTERFACE: auto, asgi, asgi2 or wsgi
    websocket: str  #: HYBRIDWORKER_WEBSOCKET: module:variable of a second application; empty = none
    workers: int  #: how many the arbiter was told to keep; TTIN and TTOU change it later
    threads: int  #: at least 1
    lend_threads: str  #: HYBRIDWORKER_LEND_THREADS: auto, on or off
    worker_connections: int  #: at least 1

    # Time, in seconds
    timeout: float  #: gunicorn's heartbeat; 0 = off
    body_timeout: float  #: longest stall of a request body: ``timeout``, or 30 when that is off
    graceful_timeout: float  #: from the beginning of a drain to its end
    keepalive: float  #: 0 = no keep-alive
    drain_window: float  #: how long an idle connection may still send a request while the worker drains
    first_window: float  #: the same for a connection that has not had an answer yet
    header_timeout: float  #: HYBRIDWORKER_HEADER_TIMEOUT; inf = off
    write_timeout: float  #: HYBRIDWORKER_WRITE_TIMEOUT; inf = off
    slow_loop: float  #: HYBRIDWORKER_SLOW_LOOP; 0 = off
    drain_delay: float  #: HYBRIDWORKER_DRAIN_DELAY; inside of graceful_timeout
    stream_drain: float  #: HYBRIDWORKER_STREAM_DRAIN; inf = off
    max_age: float  #: HYBRIDWORKER_MAX_AGE; inf = off
    request_timeout: float  #: HYBRIDWORKER_REQUEST_TIMEOUT; inf = off
    queue_timeout: float  #: HYBRIDWORKER_QUEUE_TIMEOUT; inf = off
    slow_request: float  #: HYBRIDWORKER_SLOW_REQUEST; inf = off

    # Process
    reload: bool
    reuse_port: bool
    log_to_stderr: bool  #: errorlog is "-"
    is_ssl: bool  #: certfile or keyfile is set
    certfile: str | None
    keyfile: str | None
    ca_certs: str | None
    ciphers: str | None
    sendfile: bool  #: os.sendfile may be used; sendfile, else the variable SENDFILE
    response_spool: int  #: HYBRIDWORKER_RESPONSE_SPOOL, in MiB; 0 = off
    max_rss: int  #: HYBRIDWORKER_MAX_RSS, in MiB; 0 = off
    requests_max: float  #: HYBRIDWORKER_REQUESTS_MAX; inf = off
    limit_request_body: float  #: HYBRIDWORKER_LIMIT_REQUEST_BODY, in bytes; inf = off
    health_path: str  #: HYBRIDWORKER_HEALTH_PATH; empty = off
    metrics_path: str  #: HYBRIDWORKER_METRICS_PATH; empty = off

    # Ids and access log
    request_id: bytes  #: HYBRIDWORKER_REQUEST_ID: a lower-case field name; empty = off
    access_skip: tuple[str, ...]  #: HYBRIDWORKER_ACCESS_SKIP: decoded paths; with a final * prefixes
    access_json: tuple[str, ...] | None  #: HYBRIDWORKER_ACCESS_JSON: atoms; none = the usual ones; None = off

    # Limits of a request head, in bytes unless noted
    limit_request_line: int  #: without its CRLF
    limit_request_fields: int  #: a number of fields
    limit_request_field_size: int  #: name, colon, value and CRLF
    permit_unconventional_http_method: bool
    casefold_http_method: bool
    permit_unconventional_http_version: bool
    strip_header_spaces: bool
    permit_obsolete_folding: bool
    max_head_size: int  #: request line and all fields, with every CRLF

    # Mount point, and what proxies are trusted with
    root_path: str  #: for ASGI
    script_name: str  #: for WSGI: SCRIPT_NAME of the environment
    server: bytes  #: value of the Server field: gunicorn.SERVER
    forwarded_networks: tuple[Network, ...] | None  #: forwarded_allow_ips; None = any
    proxy_networks: tuple[Network, ...] | None  #: proxy_allow_ips; None = any
    proxy_protocol: str  #: off, v1, v2 or auto
    protocol: str  #: http or uwsgi
    uwsgi_networks: tuple[Network, ...] | None  #: uwsgi_allow_ips; None = any
    secure_scheme_headers: Mapping[bytes, bytes]  #: lower-case name -> the exact value that means https
    forwarder_headers: frozenset[bytes]  #: lower-case names; may hold b"*"
    header_map: str  #: drop, refuse or dangerous
    forwarded_client: str  #: HYBRIDWORKER_FORWARDED_CLIENT: auto, on or off

    # HTTP/2
    alpn: tuple[str, ...]  #: http_protocols: what TLS clients are offered, in the order of preference
    cleartext: str  #: http2_cleartext, as far as it has an effect: off, prior-knowledge, or both
    http2_max_concurrent_streams: int
    http2_initial_window_size: int  #: bytes, of a stream
    http2_max_frame_size: int  #: bytes
    http2_max_header_list_size: int  #: bytes, each field counting 32 more

    # ASGI and WebSocket
    asgi_loop: str  #: auto, asyncio or uvloop
    asgi_lifespan: str  #: auto, on or off
    asgi_disconnect_grace_period: float  #: seconds
    websocket_max_message_size: int | None  #: bytes; None = no limit
    ws_compression: bool  #: HYBRIDWORKER_WS_COMPRESSION
    ws_ping_interval: float  #: HYBRIDWORKER_WS_PING_INTERVAL, in seconds; inf = off

    @classmethod
    def from_gunicorn(cls, cfg: Any, environ: Mapping[str, str] = os.environ) -> Settings:
        """
        Read gunicorn's ``cfg`` (a ``gunicorn.config.Config``) and our variables in ``environ``.

        Raises :class:`~.errors.ConfigurationError` for what this worker cannot serve.
        """
        if not cfg.worker_connections:
            raise ConfigurationError("worker_connections=0 would accept no connection: set it to 1 or more")
        variables = read_variables(environ)
        if variables["drain_delay"] > cfg.graceful_timeout / 2:
            raise ConfigurationError(
                f"HYBRIDWORKER_DRAIN_DELAY={variables['drain_delay']:g} is more than half of graceful_timeout"
                f" ({cfg.graceful_timeout} s), inside of which it counts: raise graceful_timeout"
            )
        if variables["health_path"] and variables["health_path"] == variables["metrics_path"]:
            raise ConfigurationError("HYBRIDWORKER_HEALTH_PATH and HYBRIDWORKER_METRICS_PATH must be two paths")
        if variables["stream_drain"] is None:
            variables["stream_drain"] = 0.0 if cfg.reload else math.inf
        if variables["request_id"] in scheme_headers(cfg.secure_scheme_headers):
            raise ConfigurationError("HYBRIDWORKER_REQUEST_ID must not be one of secure_scheme_headers")
        fields = cfg.limit_request_fields if 0 < cfg.limit_request_fields <= MAX_FIELDS else MAX_FIELDS
        field_size = cfg.limit_request_field_size or UNLIMITED
        line = min(cfg.limit_request_line, MAX_REQUEST_LINE) or UNLIMITED
        return cls(
            workers=cfg.workers,
            threads=max(1, cfg.threads),
            worker_connections=cfg.worker_connections,
            timeout=float(cfg.timeout),
            body_timeout=float(cfg.timeout or 30),
            graceful_timeout=float(cfg.graceful_timeout),
            keepalive=float(cfg.keepalive),
            drain_window=0.0 if cfg.reload else float(min(2, cfg.keepalive, cfg.graceful_timeout / 4)),
            first_window=0.0 if cfg.reload else float(min(2, cfg.graceful_timeout)),
            reload=bool(cfg.reload),
            reuse_port=bool(cfg.reuse_port),
            log_to_stderr=cfg.errorlog == "-",
            is_ssl=bool(cfg.is_ssl),
            **{name: getattr(cfg, name) for name in AS_THEY_ARE},
            sendfile=bool(cfg.sendfile),
            limit_request_line=line,
            limit_request_fields=fields,
            limit_request_field_size=field_size,
            max_head_size=line + 2 + field_section_size(fields, field_size),
            root_path=cfg.root_path,
            script_name=environ.get("SCRIPT_NAME", ""),
            server=server_field(gunicorn.SERVER),
            **peer_networks(cfg),
            proxy_protocol=cfg.proxy_protocol,
            protocol=protocol_of(cfg),
            secure_scheme_headers=scheme_headers(cfg.secure_scheme_headers),
            forwarder_headers=header_names(cfg.forwarder_headers),
            header_map=cfg.header_map,
            **http2_settings(cfg),
            asgi_loop=cfg.asgi_loop,
            asgi_lifespan=cfg.asgi_lifespan,
            asgi_disconnect_grace_period=float(cfg.asgi_disconnect_grace_period),
            websocket_max_message_size=getattr(cfg, "websocket_max_message_size", 1 << 24) or None,  # since 26.3
            **variables,
        )

    @property
    def http2(self) -> bool:
        """Whether a connection may speak HTTP/2."""
        return "h2" in self.alpn if self.is_ssl else self.cleartext != "off"

    @property
    def id_field(self) -> bytes:
        """The lower-case name of the field that is replaced by the id of a request; empty where none is."""
        return b"" if self.request_id == b"traceparent" else self.request_id

    @property
    def rewrites_heads(self) -> bool:
        """Whether heads are permitted that the parser does not take as they come, whatever their method."""
        return (
            self.permit_unconventional_http_method
            or self.permit_unconventional_http_version
            or self.strip_header_spaces
            or self.permit_obsolete_folding
        )

    @property
    def has_distant_proxy(self) -> bool:
        """Whether a proxy on another machine is trusted about its clients, and may keep connections."""
        if self.protocol == "uwsgi":
            return False  # which knows no kept connections
        trusted = [self.forwarded_networks, self.proxy_networks if self.proxy_protocol != "off" else ()]
        return any(networks is None or not all(net.is_loopback for net in networks) for networks in trusted)


def check(cfg: Any, environ: Mapping[str, str] = os.environ) -> list[str]:
    """
    Validate everything, as a worker will; for the master, once.

    Returns the warnings to be logged: one for each setting that was changed and has no effect here and for each name
    in ``environ`` that misses the prefix of our variables by a little, one for HTTP/2 that is asked for and not
    served, and one for a keepalive that disturbs a proxy.
    Raises :class:`~.errors.ConfigurationError`.
    """
    settings = Settings.from_gunicorn(cfg, environ)
    warnings = [
        f"{name}={cfg.settings[name].get()!r} has no effect with this worker: {row.remark}"
        for name, row in SETTINGS.items()
        if row.fate is Fate.REFUSED and is_changed(cfg, name)
    ]
    warnings.extend(near_misses(environ))
    if line := http2_warning(cfg):
        warnings.append(line)
    if not is_changed(cfg, "keepalive") and settings.has_distant_proxy:
        warnings.append(
            f"keepalive={cfg.keepalive} s is gunicorn's default and shorter than what most load balancers keep a"
            " connection for, so that they now and then answer 502: set it above theirs, to 75 for instance"
        )
    logs = (cfg.accesslog, cfg.logconfig, cfg.logconfig_dict, cfg.logconfig_json, cfg.syslog)
    if settings.access_json is not None and not any(logs):
        warnings.append("HYBRIDWORKER_ACCESS_JSON has no effect without an access log: set accesslog='-' for instance")
    return warnings


# -- conversions


def field_section_size(fields: int, field_size: int) -> int:
    """
    The most bytes that the fields of one head may take.

    A head is held in memory. gunicorn's formula gives 800 kB by default, and 32 GiB when its factors mean
    "unlimited". So one field may have its full length, and all others together have 4 MiB.
    """
    return min(fields * (field_size + 2) + 4, field_size + MAX_OTHER_FIELDS)


def peer_networks(cfg: Any) -> dict[str, Any]:
    """Who may be believed what, or may speak at all."""
    return {f"{kind}_networks": networks(getattr(cfg, f"{kind}_allow_ips")) for kind in ("forwarded", "proxy", "uwsgi")}


def http2_settings(cfg: Any) -> dict[str, Any]:
    """The fields of HTTP/2."""
    spoken = cfg.http_protocols if cfg.protocol == "http" else ()
    return {
        "alpn": tuple(ALPN[name] for name in spoken),
        "cleartext": cleartext(cfg),
        "http2_max_header_list_size": cfg.http2_max_header_list_size or UNLIMITED,
        **{f"http2_{name}": getattr(cfg, f"http2_{name}") for name in HTTP2},
    }


def cleartext(cfg: Any) -> str:
    """What of ``http2_cleartext``, which is new in gunicorn 26.2, has an effect: off, prior-knowledge or both."""
    value = str(getattr(cfg, "http2_cleartext", "off"))
    possible = "h2" in cfg.http_protocols and cfg.protocol == "http" and not cfg.is_ssl
    return value if possible and value != "upgrade" else "off"


def http2_warning(cfg: Any) -> str:
    """One line where ``http_protocols`` or ``http2_cleartext`` ask for more than there is; else empty."""
    if cfg.protocol == "uwsgi" and "h2" in cfg.http_protocols:
        return f"http_protocols={cfg.http_protocols!r}: HTTP/2 is not served, because protocol is uwsgi"
    value = getattr(cfg, "http2_cleartext", "off")
    if value == "off":
        return ""
    if "h2" not in cfg.http_protocols:
        return f"http2_cleartext={value!r} has no effect: http_protocols lacks h2"
    if cfg.is_ssl:
        return f"http2_cleartext={value!r} has no effect under TLS, where ALPN chooses the protocol"
    if value == "prior-knowledge":
        return ""
    return (
        f"http2_cleartext={value!r}: Upgrade: h2c is not served, as RFC 9113 dropped it, and such requests get"
        " HTTP/1.1; set it to prior-knowledge"
    )


def networks(entries: Iterable[str]) -> tuple[Network, ...] | None:
    """Addresses and CIDR networks, which gunicorn has validated; None, for any, if one of them is ``*``."""
    names = tuple(entries)
    return None if "*" in names else tuple(ipaddress.ip_network(name) for name in names)


def scheme_headers(headers: Mapping[str, str]) -> Mapping[bytes, bytes]:
    """``secure_scheme_headers`` as it is compared with a request. gunicorn only checks that it is a dictionary."""
    try:
        table = {name.lower().encode("ascii"): value.encode("latin-1") for name, value in headers.items()}
    except (AttributeError, UnicodeEncodeError):
        message = f"secure_scheme_headers={headers!r} must map names of headers to values, all of them strings"
        raise ConfigurationError(message) from None
    return MappingProxyType(table)


def server_field(name: object) -> bytes:
    """``gunicorn.SERVER``, which a configuration file may set. gunicorn would send line breaks with it."""
    text = str(name)
    if not re.fullmatch(r"[\t -~\xa0-\xff]*", text):
        raise ConfigurationError(f"gunicorn.SERVER={name!r} must be text without line breaks, in latin-1")
    return text.encode("latin-1")


def header_names(names: Iterable[str]) -> frozenset[bytes]:
    """``forwarder_headers`` as it is compared with a request. A name that is not ASCII matches no header."""
    return frozenset(name.lower().encode("ascii") for name in names if name.isascii())
