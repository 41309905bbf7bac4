"""
Settings: gunicorn's configuration and our own variables, read once, typed, frozen.

One of the three doors to gunicorn, and the only module that reads its ``cfg``.
:meth:`Settings.from_gunicorn` runs twice: in the master, through :func:`check`, so that
a mistake stops the boot with one line; and in each worker after the fork, because a
reload brings a new ``cfg`` without a new check. No loop, no thread, no side effect.

Two tables are the documentation of the configuration, and README.rst is tested against
them: :data:`VARIABLES`, the ``HYBRIDWORKER_*`` variables of the environment, and
:data:`SETTINGS`, what becomes of each setting of gunicorn. A variable is added by one
row in the first, and a field of the same name in :class:`Settings`.

The rule one could break by accident: every conversion ("0 means no limit", lower-case
names, clamping) happens here, so that a field can be used as it is. Where 0 turns a
timeout off the field holds ``math.inf``, and ``now - since > timeout`` needs no case.
"""

from __future__ import annotations

import difflib
import enum
import ipaddress
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, NamedTuple

import gunicorn

from ..errors import ConfigurationError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: gunicorn's own ceilings; its WSGI workers clamp to them.
MAX_REQUEST_LINE = 8190
MAX_FIELDS = 32768
#: What "unlimited" (0) means for one line. gunicorn's C parsers use the same bound for the request line.
UNLIMITED = 1024 * 1024
#: The most that the fields of one head may take besides the longest one, however high the limits are.
MAX_OTHER_FIELDS = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Effective values: clamped and converted. Each comment names the setting where the field's name does not."""

    # Application and concurrency
    interface: str  #: HYBRIDWORKER_INTERFACE: auto, asgi, asgi2 or wsgi
    workers: int  #: how many the arbiter was told to keep; TTIN and TTOU change it later
    threads: int  #: at least 1
    worker_connections: int  #: at least 1

    # Time, in seconds
    timeout: float  #: gunicorn's heartbeat; 0 = off
    body_timeout: float  #: longest stall of a request body: ``timeout``, or 30 when that is off
    graceful_timeout: float  #: from the beginning of a drain to its end
    keepalive: float  #: 0 = no keep-alive
    drain_window: float  #: how long an idle connection may still speak while the worker drains
    first_window: float  #: and one that has not had an answer yet
    header_timeout: float  #: HYBRIDWORKER_HEADER_TIMEOUT; inf = off
    write_timeout: float  #: HYBRIDWORKER_WRITE_TIMEOUT; inf = off
    slow_loop: float  #: HYBRIDWORKER_SLOW_LOOP; 0 = off
    drain_delay: float  #: HYBRIDWORKER_DRAIN_DELAY; inside of graceful_timeout

    # Process
    reload: bool
    reuse_port: bool
    is_ssl: bool  #: certfile or keyfile is set
    sendfile: bool  #: os.sendfile may be used; sendfile, else the variable SENDFILE
    max_rss: int  #: HYBRIDWORKER_MAX_RSS, in MiB; 0 = off
    health_path: str  #: HYBRIDWORKER_HEALTH_PATH; empty = off
    metrics_path: str  #: HYBRIDWORKER_METRICS_PATH; empty = off

    # Limits of a request head, in bytes unless noted
    limit_request_line: int  #: without its CRLF
    limit_request_fields: int  #: a number of fields
    limit_request_field_size: int  #: name, colon, value and CRLF
    max_head_size: int  #: request line and all fields, with every CRLF

    # Mount point, and who is believed about what
    root_path: str  #: for ASGI
    script_name: str  #: for WSGI: SCRIPT_NAME of the environment
    server: bytes  #: value of the Server field: gunicorn.SERVER
    forwarded_networks: tuple[Network, ...] | None  #: forwarded_allow_ips; None = any
    proxy_networks: tuple[Network, ...] | None  #: proxy_allow_ips; None = any
    proxy_protocol: str  #: off, v1, v2 or auto
    secure_scheme_headers: Mapping[bytes, bytes]  #: lower-case name -> the exact value that means https
    forwarder_headers: frozenset[bytes]  #: lower-case names; may hold b"*"
    header_map: str  #: drop, refuse or dangerous
    forwarded_client: str  #: HYBRIDWORKER_FORWARDED_CLIENT: auto, on or off

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
        refuse_protocols(cfg)
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
            is_ssl=bool(cfg.is_ssl),
            sendfile=bool(cfg.sendfile),
            limit_request_line=line,
            limit_request_fields=fields,
            limit_request_field_size=field_size,
            max_head_size=line + 2 + field_section_size(fields, field_size),
            root_path=cfg.root_path,
            script_name=environ.get("SCRIPT_NAME", ""),
            server=server_field(gunicorn.SERVER),
            forwarded_networks=networks(cfg.forwarded_allow_ips),
            proxy_networks=networks(cfg.proxy_allow_ips),
            proxy_protocol=cfg.proxy_protocol,
            secure_scheme_headers=scheme_headers(cfg.secure_scheme_headers),
            forwarder_headers=header_names(cfg.forwarder_headers),
            header_map=cfg.header_map,
            asgi_loop=cfg.asgi_loop,
            asgi_lifespan=cfg.asgi_lifespan,
            asgi_disconnect_grace_period=float(cfg.asgi_disconnect_grace_period),
            # New in gunicorn 26.3.
            websocket_max_message_size=getattr(cfg, "websocket_max_message_size", 16 * 1024 * 1024) or None,
            **variables,
        )

    @property
    def has_distant_proxy(self) -> bool:
        """Whether somebody beyond this machine is trusted about its clients."""
        trusted = [self.forwarded_networks, self.proxy_networks if self.proxy_protocol != "off" else ()]
        return any(networks is None or not all(net.is_loopback for net in networks) for networks in trusted)


def check(cfg: Any, environ: Mapping[str, str] = os.environ) -> list[str]:
    """
    Validate everything, as a worker will; for the master, once.

    Returns the lines to be logged as warnings: one for each setting that has a value
    of its own and no effect here, and one for a keepalive that will disturb a proxy.
    Raises :class:`~.errors.ConfigurationError`.
    """
    settings = Settings.from_gunicorn(cfg, environ)
    warnings = [
        f"{name}={cfg.settings[name].get()!r} has no effect with this worker: {row.remark}"
        for name, row in SETTINGS.items()
        if row.fate is Fate.REFUSED and is_changed(cfg, name)
    ]
    if not is_changed(cfg, "keepalive") and settings.has_distant_proxy:
        warnings.append(
            f"keepalive={cfg.keepalive} s is gunicorn's default and shorter than what most load balancers keep a"
            " connection for, so that they now and then answer 502: set it above theirs, to 75 for instance"
        )
    return warnings


# -- conversions


def field_section_size(fields: int, field_size: int) -> int:
    """
    The most bytes that the fields of one head may take.

    gunicorn's formula gives 800 kB by default, but could reach 32 GiB when its factors
    mean "unlimited", and a head is held in memory. So one field may be as long as it is
    allowed to be, and 4 MiB remain for all others.
    """
    return min(fields * (field_size + 2) + 4, field_size + MAX_OTHER_FIELDS)


def networks(entries: Iterable[str]) -> tuple[Network, ...] | None:
    """Addresses and CIDR networks, which gunicorn has validated; None, which means any, if one of them is ``*``."""
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


# -- our own variables

PREFIX = "HYBRIDWORKER_"

#: What Kubernetes puts into the environment of every pod next to a service called ``hybridworker`` or
#: ``hybridworker-something``. No variable of ours may look like this.
SERVICE_LINK = re.compile(
    rf"{PREFIX}(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)", re.ASCII
)


class Kind(NamedTuple):
    """What a variable may hold, in words, and how its text becomes a value (ValueError or KeyError if it does not)."""

    allowed: str
    parse: Callable[[str], object]


def choice(*words: str) -> Kind:
    """One of ``words``."""
    table = {word: word for word in words}
    return Kind(f"{', '.join(words[:-1])} or {words[-1]}", lambda text: table[text.lower()])


def seconds(off: float) -> Kind:
    """Seconds, with an optional fraction; 0 becomes ``off``."""
    allowed = "a number of seconds such as 15 or 0.5, or 0 for off"
    return Kind(allowed, lambda text: float(digits(text, fraction=True)) or off)


def digits(text: str, *, fraction: bool = False) -> str:
    """Return ``text`` if it is plain: no sign, exponent, underscore or name, all of which ``float`` takes."""
    if not re.fullmatch(r"\d{1,12}(\.\d{1,12})?" if fraction else r"\d{1,12}", text, re.ASCII):
        raise ValueError(text)
    return text


def path(text: str) -> str:
    """Return ``text`` if it is empty or the path of a URL, without query and percent-encoding."""
    if text and not re.fullmatch(r"/[!-$&->@-~]*", text):
        raise ValueError(text)
    return text


SWITCH = Kind("on or off", lambda text: {"on": True, "off": False}[text.lower()])
PATH = Kind("a path such as /health, or nothing for off", path)
MEBIBYTES = Kind("a whole number of MiB, or 0 for off", lambda text: int(digits(text)))


class Variable(NamedTuple):
    """One ``HYBRIDWORKER_*`` variable. Its value goes to the field of :class:`Settings` that has its name."""

    kind: Kind
    default: str
    unit: str
    remark: str


VARIABLES: Mapping[str, Variable] = {
    PREFIX + "INTERFACE": Variable(
        choice("auto", "asgi", "asgi2", "wsgi"),
        "auto",
        "",
        "what the application is, where its signature does not tell",
    ),
    PREFIX + "FORWARDED_CLIENT": Variable(
        choice("auto", "on", "off"),
        "auto",
        "",
        "whether X-Forwarded-For of a trusted proxy names the client; auto: for ASGI yes, for WSGI no",
    ),
    PREFIX + "HEADER_TIMEOUT": Variable(
        seconds(off=math.inf), "15", "s", "a request head must be complete this long after its first byte"
    ),
    PREFIX + "WRITE_TIMEOUT": Variable(
        seconds(off=math.inf), "60", "s", "a client that takes no byte of a response for this long is cut off"
    ),
    PREFIX + "WS_COMPRESSION": Variable(SWITCH, "on", "", "permessage-deflate, for clients that offer it"),
    PREFIX + "WS_PING_INTERVAL": Variable(
        seconds(off=math.inf), "20", "s", "between two pings to a WebSocket client; one left unanswered closes it"
    ),
    PREFIX + "SLOW_LOOP": Variable(
        seconds(off=0.0), "1", "s", "a loop that stands still for this long is reported, with the stack that held it"
    ),
    PREFIX + "HEALTH_PATH": Variable(
        PATH, "", "", "answered 200 before the application, 503 when the worker leaves or can take no more"
    ),
    PREFIX + "METRICS_PATH": Variable(
        PATH, "", "", "answered before the application with Prometheus text for all workers; make it no public path"
    ),
    PREFIX + "DRAIN_DELAY": Variable(
        seconds(off=0.0), "0", "s", "go on accepting this long after SIGTERM, so that load balancers notice"
    ),
    PREFIX + "MAX_RSS": Variable(MEBIBYTES, "0", "MiB", "a worker that has grown to this size drains and is replaced"),
}


def read_variables(environ: Mapping[str, str]) -> dict[str, Any]:
    """Field name -> value of every variable of ours. An empty one counts as not set, as container tools write it."""
    for name in sorted(environ):
        if name.upper().startswith(PREFIX) and name not in VARIABLES and not SERVICE_LINK.fullmatch(name):
            raise ConfigurationError(f"{name} is not a variable of hybridworker; {suggestion(name)}")
    values = {}
    for name, variable in VARIABLES.items():
        text = environ.get(name, "").strip() or variable.default
        try:
            values[name.removeprefix(PREFIX).lower()] = variable.kind.parse(text)
        except (KeyError, ValueError):
            raise ConfigurationError(f"{name}={environ[name]!r} must be {variable.kind.allowed}") from None
    return values


def suggestion(name: str) -> str:
    """Name the nearest variable, or all of them. The common prefix is left out, else everything would be near."""
    known = [variable.removeprefix(PREFIX) for variable in VARIABLES]
    nearest = difflib.get_close_matches(name.upper().removeprefix(PREFIX), known, n=1, cutoff=0.5)
    if nearest:
        return f"did you mean {PREFIX}{nearest[0]}?"
    return f"there are {', '.join(VARIABLES)}"


# -- gunicorn's settings


class Fate(enum.Enum):
    """What becomes of a setting of gunicorn."""

    OBEYED = "obeyed"  #: it acts in a worker, and does so here
    GUNICORN = "gunicorn's own"  #: gunicorn acts on it outside the worker class; it works unchanged
    REFUSED = "refused"  #: it has no effect here: a value other than the default is a warning, or stops the boot


class Row(NamedTuple):
    """``remark`` says how a setting is obeyed, whose it is, or why it is refused."""

    fate: Fate
    remark: str


#: Settings that share a remark stand together.
_REMARKS: Mapping[Fate, Mapping[str, str]] = {
    Fate.OBEYED: {
        "threads": "size of the pool in which WSGI calls run; with 1 they never overlap",
        "worker_connections": "a worker that has so many connections accepts no further ones until one ends",
        "max_requests max_requests_jitter": "the worker then stops accepting and finishes its requests, without hurry",
        "timeout": "heartbeat of the event loop; also the longest stall of a request body (30 s when 0)",
        "graceful_timeout": "the longest drain after TERM; the worker keeps to it by itself",
        "keepalive": "for idle connections; 0 closes each one after its response",
        "reload": "idle connections do not delay the restart, work in threads by a second at most",
        "reuse_port": "each worker empties its own accept queue before it closes the socket",
        "sendfile": "for wsgi.file_wrapper, http.response.pathsend and http.response.zerocopysend, without TLS",
        "limit_request_line": "414 beyond it; never more than 8190, and 1 MiB when 0",
        "limit_request_fields": "431 beyond it, counting trailers by themselves; 32768 when 0 or more than that",
        "limit_request_field_size": "431 beyond it; 1 MiB when 0. All other fields together have 4 MiB at most",
        "forwarded_allow_ips secure_scheme_headers": "whom to believe that the client came by https; unix peers always",
        "forwarder_headers header_map": "names with an underscore, for ASGI as for WSGI",
        "proxy_protocol proxy_allow_ips": "versions 1 and 2, for the whole connection; unix peers are always allowed",
        "root_path": "root_path of the ASGI scope; path stays as received",
        "asgi_loop": "auto is uvloop",
        "asgi_lifespan": "startup may take as long as it needs",
        "asgi_disconnect_grace_period": "from the client's leaving to the cancellation of the ASGI application",
        "websocket_max_message_size": "1009 beyond it; 0 means no limit",
        "accesslog access_log_format logger_class": "the logger is called once per request, WebSockets included",
        "statsd_host statsd_prefix dogstatsd_tags": "with an access log and without",
        "pre_request post_request": "for ASGI on the event loop, for WSGI in the thread of the call",
        "post_worker_init worker_int worker_abort worker_exit": "always called, also when a timeout ends the worker",
        "certfile keyfile ca_certs cert_reqs ciphers ssl_context": "read once per worker; an error stops the boot",
        "do_handshake_on_connect": "always so, whatever its value",
    },
    Fate.GUNICORN: {
        "config wsgi_app paste raw_paste_global_conf pythonpath chdir preload_app": "what is loaded, and where",
        "check_config print_config": "commands, not settings",
        "spew": "a debugging aid that traces every line",
        "bind backlog enable_backlog_metric": "the sockets, which the master opens",
        "workers worker_class": "which workers the master starts, and how many",
        "daemon pidfile proc_name default_proc_name": "the master process",
        "user group initgroups umask worker_tmp_dir": "applied before the application is loaded",
        "raw_env": "may also set HYBRIDWORKER_* variables",
        "reload_engine reload_extra_files": "how a change is noticed",
        "errorlog loglevel capture_output enable_stdio_inheritance logconfig logconfig_dict logconfig_json syslog"
        " syslog_addr syslog_prefix syslog_facility disable_redirect_access_to_syslog": "what is logged, and where",
        "on_starting on_reload when_ready pre_fork post_fork pre_exec child_exit"
        " nworkers_changed on_exit": "called by the master",
        "control_socket control_socket_mode control_socket_disable": "served by the master",
        "dirty_apps dirty_workers dirty_timeout dirty_threads dirty_graceful_timeout on_dirty_starting dirty_post_fork"
        " dirty_worker_init dirty_worker_exit": "processes of their own",
        "http_parser": "chooses between gunicorn's parsers; this worker always uses httptools",
        "ssl_version": "ignored by gunicorn itself, which says so; use ssl_context",
        "tmp_upload_dir": "read by nothing in gunicorn",
    },
    Fate.REFUSED: {
        "permit_unconventional_http_method casefold_http_method": "methods are those that llhttp knows, in capitals",
        "permit_unconventional_http_version": "HTTP/1.0 and HTTP/1.1 are served, nothing else",
        "permit_obsolete_folding strip_header_spaces": "it invites request smuggling, and llhttp does not allow it",
        "suppress_ragged_eofs": "under TLS every end of the stream is a disconnect",
        "http_protocols http2_max_concurrent_streams http2_initial_window_size http2_max_frame_size"
        " http2_max_header_list_size": "HTTP/2 is not served; TLS clients are offered http/1.1",
        "http2_cleartext": "HTTP/2 is not served; set it to off and let the proxy speak HTTP/1.1 to gunicorn",
        "protocol": "only HTTP is served; set it to http and use proxy_pass, not uwsgi_pass, in nginx",
        "uwsgi_allow_ips": "the uwsgi protocol is not served",
    },
}

SETTINGS: Mapping[str, Row] = {
    name: Row(fate, remark)
    for fate, remarks in _REMARKS.items()
    for names, remark in remarks.items()
    for name in names.split()
}

#: Refused settings whose other values would have requests misread: they stop the boot.
MISREADING = ("protocol", "http2_cleartext")


def refuse_protocols(cfg: Any) -> None:
    """Raise for a protocol that this worker would take for broken HTTP."""
    for name in MISREADING:
        if is_changed(cfg, name):
            value = cfg.settings[name].get()
            raise ConfigurationError(f"{name}={value!r} is not possible with this worker: {SETTINGS[name].remark}")


def is_changed(cfg: Any, name: str) -> bool:
    """Whether a setting has a value other than gunicorn's default. One that an older gunicorn lacks has not."""
    setting = cfg.settings.get(name)
    return setting is not None and setting.get() != type(setting)().get()
