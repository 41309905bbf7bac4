"""
The table of gunicorn's settings: whether this worker obeys each of them, leaves it to gunicorn, or cannot obey it, and
why. To add one, add it to ``_REMARKS``; a setting under REFUSED gets its warning in :func:`~.settings.check` by that
alone.

:data:`SETTINGS` is the documentation: ``python -m hybridworker settings`` prints it, and README.rst names what differs.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..errors import ConfigurationError


class Fate(enum.Enum):
    """What becomes of a setting of gunicorn."""

    OBEYED = "obeyed"  #: this worker acts on it
    GUNICORN = "gunicorn's own"  #: gunicorn acts on it outside the worker class; it works unchanged
    REFUSED = "refused"  #: it has no effect here: a value other than the default is a warning, or stops the boot


class Row(NamedTuple):
    """``remark`` says how a setting is obeyed, whose it is, or why it is refused."""

    fate: Fate
    remark: str


#: Settings that share a remark stand together.
_REMARKS: Mapping[Fate, Mapping[str, str]] = {
    Fate.OBEYED: {
        "threads": "size of the pool in which WSGI calls run; with 1 they never overlap. Above 1 also how many threads"
        " are lent to ASGI calls",
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
        "permit_unconventional_http_method casefold_http_method": "without them, 3 to 20 capitals, digits and symbols",
        "permit_unconventional_http_version": "a version before HTTP/1.1 is served as HTTP/1.0, any other as HTTP/1.1."
        " Nothing in HTTP/2, whose requests name no version",
        "permit_obsolete_folding strip_header_spaces": "they invite request smuggling; trailers stay strict. Never over"
        " HTTP/2, where there are no lines to fold, and such a name is malformed",
        "forwarded_allow_ips secure_scheme_headers": "whom to believe that the client came by https; unix peers always",
        "forwarder_headers header_map": "names with an underscore, for ASGI as for WSGI",
        "proxy_protocol proxy_allow_ips": "versions 1 and 2, for the whole connection; unix peers are always allowed",
        "protocol": "http, or uwsgi for nginx's uwsgi_pass, on all sockets; HTTP/2 is not served then",
        "uwsgi_allow_ips": "403 for all other peers; networks work too, and unix peers are always allowed",
        "http_protocols": "h2 is offered to TLS clients in the order given; HTTP/1.1 is served to all others",
        "http2_cleartext": "prior-knowledge, for the peers in forwarded_allow_ips; Upgrade: h2c is not served",
        "http2_max_concurrent_streams": "requests of one connection at a time; one more is refused, to be repeated",
        "http2_initial_window_size": "bytes of a request body that may be on their way; more is faster for uploads",
        "http2_max_frame_size": "of the frames that clients send",
        "http2_max_header_list_size": "431 beyond it; 1 MiB when 0",
        "root_path": "root_path of the ASGI scope; path stays as received",
        "asgi_loop": "auto is uvloop",
        "asgi_lifespan": "startup may take as long as it needs",
        "asgi_disconnect_grace_period": "from the client's leaving to the cancellation of the ASGI application",
        "websocket_max_message_size": "1009 beyond it; 0 means no limit",
        "accesslog access_log_format logger_class": "the logger is called once per request, WebSockets included",
        "statsd_host statsd_prefix dogstatsd_tags": "with an access log and without",
        "pre_request post_request": "for ASGI on the event loop, for WSGI in the thread of the call",
        "post_worker_init worker_int worker_abort worker_exit": "always called, also when a timeout ends the worker",
        "certfile keyfile ca_certs": "looked at once a minute, for new connections; an error stops the boot",
        "cert_reqs ciphers ssl_context": "read once per worker; with a hook the files are not looked at again",
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
        "suppress_ragged_eofs": "under TLS every end of the stream is a disconnect",
    },
}

SETTINGS: Mapping[str, Row] = {
    name: Row(fate, remark)
    for fate, remarks in _REMARKS.items()
    for names, remark in remarks.items()
    for name in names.split()
}

#: What ``protocol`` may be. gunicorn takes any other name for the first.
PROTOCOLS = ("http", "uwsgi")


def protocol_of(cfg: Any) -> str:
    """What connections speak. Raises :class:`~.errors.ConfigurationError` for a name that is no protocol."""
    name = str(cfg.protocol)
    if name not in PROTOCOLS:
        raise ConfigurationError(f"protocol={name!r} must be {' or '.join(PROTOCOLS)}")
    return name


def is_changed(cfg: Any, name: str) -> bool:
    """Whether a setting has a value other than gunicorn's default. An older gunicorn may lack the setting."""
    setting = cfg.settings.get(name)
    return setting is not None and setting.get() != type(setting)().get()
