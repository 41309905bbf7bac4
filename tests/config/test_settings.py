"""What becomes of gunicorn's values."""

from __future__ import annotations

import dataclasses
import math
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import pytest
from gunicorn.config import Config

from hybridworker.config.settings import Settings, check, networks
from hybridworker.errors import ConfigurationError
from tests.config.configured import MIB, config, read, refusal


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing configured every field has gunicorn's default, converted, or ours."""
    monkeypatch.delenv("SENDFILE", raising=False)
    settings = read(workers=1, forwarded_allow_ips="127.0.0.1,::1")
    local = (IPv4Network("127.0.0.1/32"), IPv6Network("::1/128"))
    assert dataclasses.asdict(dataclasses.replace(settings, secure_scheme_headers={})) == {
        "interface": "auto",
        "websocket": "",
        "workers": 1,
        "threads": 1,
        "lend_threads": "auto",
        "worker_connections": 1000,
        "timeout": 30.0,
        "body_timeout": 30.0,
        "graceful_timeout": 30.0,
        "keepalive": 2.0,
        "protocol": "http",
        "uwsgi_networks": networks(["127.0.0.1", "::1"]),
        "alpn": ("http/1.1",),
        "cleartext": "off",
        "http2_max_concurrent_streams": 100,
        "http2_initial_window_size": 65535,
        "http2_max_frame_size": 16384,
        "http2_max_header_list_size": 65536,
        "drain_window": 2.0,
        "first_window": 2.0,
        "header_timeout": 15.0,
        "write_timeout": 60.0,
        "slow_loop": 1.0,
        "reload": False,
        "reuse_port": False,
        "log_to_stderr": True,
        "is_ssl": False,
        "certfile": None,
        "keyfile": None,
        "ca_certs": None,
        "ciphers": None,
        "sendfile": True,
        "response_spool": 64,
        **dict.fromkeys(
            (
                "permit_unconventional_http_method",
                "casefold_http_method",
                "permit_unconventional_http_version",
                "strip_header_spaces",
                "permit_obsolete_folding",
            ),
            False,
        ),
        "max_rss": 0,
        "request_id": b"",
        "drain_delay": 0.0,
        "stream_drain": math.inf,
        "max_age": math.inf,
        "access_skip": (),
        "access_json": None,
        "request_timeout": math.inf,
        "queue_timeout": math.inf,
        "slow_request": math.inf,
        "requests_max": math.inf,
        "limit_request_body": math.inf,
        "health_path": "",
        "metrics_path": "",
        "limit_request_line": 4094,
        "limit_request_fields": 100,
        "limit_request_field_size": 8190,
        "max_head_size": 4094 + 2 + 100 * 8192 + 4,
        "root_path": "",
        "script_name": "",
        "server": b"gunicorn",
        "forwarded_networks": local,
        "proxy_networks": local,
        "proxy_protocol": "off",
        "secure_scheme_headers": {},
        "forwarder_headers": frozenset({b"script_name", b"path_info"}),
        "header_map": "drop",
        "forwarded_client": "auto",
        "asgi_loop": "auto",
        "asgi_lifespan": "auto",
        "asgi_disconnect_grace_period": 3.0,
        "websocket_max_message_size": 16 * MIB,
        "ws_compression": True,
        "ws_ping_interval": 20.0,
    }
    assert settings.secure_scheme_headers == {
        b"x-forwarded-protocol": b"ssl",
        b"x-forwarded-proto": b"https",
        b"x-forwarded-ssl": b"on",
    }


def test_every_number_of_seconds_is_a_float() -> None:
    """What is compared with the loop's clock is a float, however gunicorn was given it."""
    settings = read({"HYBRIDWORKER_SLOW_LOOP": "0"}, timeout="0", keepalive="1", graceful_timeout="4")
    for field in dataclasses.fields(Settings):
        if field.type == "float":
            assert type(getattr(settings, field.name)) is float, field.name


def test_settings_are_frozen() -> None:
    """Neither a field nor the mapping in one of them can be changed."""
    settings = read()
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.threads = 2  # type: ignore[misc]
    with pytest.raises(TypeError):
        settings.secure_scheme_headers[b"x"] = b"y"  # type: ignore[index]


def test_plain_settings_arrive_as_they_are() -> None:
    """Settings that need no conversion keep their value."""
    settings = read(
        workers=3,
        threads=8,
        worker_connections=50,
        reuse_port=True,
        root_path="/api",
        header_map="refuse",
        asgi_loop="asyncio",
        asgi_lifespan="off",
        asgi_disconnect_grace_period=0,
    )
    assert (settings.workers, settings.threads, settings.worker_connections) == (3, 8, 50)
    assert settings.reuse_port is True
    assert (settings.root_path, settings.header_map) == ("/api", "refuse")
    assert (settings.asgi_loop, settings.asgi_lifespan, settings.asgi_disconnect_grace_period) == ("asyncio", "off", 0)


@pytest.mark.parametrize(
    ("configured", "effective"), [(0, MIB), (1, 1), (4094, 4094), (8190, 8190), (8191, 8190), (10 * MIB, 8190)]
)
def test_limit_request_line(configured: int, effective: int) -> None:
    """0 is unlimited under a bound of 1 MiB; everything else is at most 8190."""
    assert read(limit_request_line=configured).limit_request_line == effective


@pytest.mark.parametrize(
    ("configured", "effective"),
    [(0, 32768), (1, 1), (100, 100), (32767, 32767), (32768, 32768), (32769, 32768), (10**9, 32768)],
)
def test_limit_request_fields(configured: int, effective: int) -> None:
    """0, and everything above 32768, is 32768."""
    assert read(limit_request_fields=configured).limit_request_fields == effective


@pytest.mark.parametrize(("configured", "effective"), [(0, MIB), (1, 1), (8190, 8190), (10 * MIB, 10 * MIB)])
def test_limit_request_field_size(configured: int, effective: int) -> None:
    """0 is unlimited under a bound of 1 MiB; every other value is obeyed."""
    assert read(limit_request_field_size=configured).limit_request_field_size == effective


@pytest.mark.parametrize(
    ("line", "fields", "size", "effective"),
    [
        (10, 1, 100, 10 + 2 + 106),  # the product
        (4094, 512, 8190, 4094 + 2 + 512 * 8192 + 4),  # a little below the bound
        (4094, 1000, 8190, 4094 + 2 + 8190 + 4 * MIB),  # the bound
        (4094, 1, 10 * MIB, 4094 + 2 + 10 * MIB + 6),  # the one field may be as long as it is allowed to be
        (4094, 9, 10 * MIB, 4094 + 2 + 10 * MIB + 4 * MIB),
        (0, 0, 0, MIB + 2 + MIB + 4 * MIB),
    ],
)
def test_max_head_size(line: int, fields: int, size: int, effective: int) -> None:
    """It has room for the request line and all fields, but never for more than one long field and 4 MiB."""
    settings = read(limit_request_line=line, limit_request_fields=fields, limit_request_field_size=size)
    assert settings.max_head_size == effective


def test_body_timeout_is_timeout_or_30() -> None:
    """A request body may stall as long as the heartbeat; 30 s when that is off."""
    assert read(timeout=7).body_timeout == 7
    off = read(timeout=0)
    assert (off.timeout, off.body_timeout) == (0, 30)


@pytest.mark.parametrize(
    ("keepalive", "graceful", "reload", "window"),
    [(75, 30, False, 2), (1, 30, False, 1), (0, 30, False, 0), (5, 2, False, 0.5), (5, 0, False, 0), (5, 30, True, 0)],
)
def test_drain_window(keepalive: int, graceful: int, reload: bool, window: float) -> None:
    """min(2 s, keepalive, a quarter of graceful_timeout), and nothing in development."""
    assert read(keepalive=keepalive, graceful_timeout=graceful, reload=reload).drain_window == window


@pytest.mark.parametrize(
    ("keepalive", "graceful", "reload", "window"),
    [(75, 30, False, 2), (0, 30, False, 2), (0, 1, False, 1), (5, 30, True, 0)],
)
def test_first_window(keepalive: int, graceful: int, reload: bool, window: float) -> None:
    """A connection that has not had an answer yet is waited for whatever keepalive says."""
    assert read(keepalive=keepalive, graceful_timeout=graceful, reload=reload).first_window == window


@pytest.mark.parametrize(
    ("configured", "expected"),
    [
        ("*", None),
        ("10.0.0.1, *", None),
        ("", ()),
        ("10.0.0.1,10.1.0.0/16", (IPv4Network("10.0.0.1/32"), IPv4Network("10.1.0.0/16"))),
        ("::1, fd00::/8", (IPv6Network("::1/128"), IPv6Network("fd00::/8"))),
    ],
)
def test_networks(configured: str, expected: object) -> None:
    """``*`` anywhere means any peer, an empty list none."""
    assert read(forwarded_allow_ips=configured).forwarded_networks == expected
    assert read(proxy_allow_ips=configured).proxy_networks == expected


def test_header_names_are_lower_case_bytes() -> None:
    """Names are converted to what is compared with a request; values keep their case."""
    settings = read(secure_scheme_headers={"X-Secure": "YES é"}, forwarder_headers="SCRIPT_NAME,Remote_User,*,É")
    assert settings.secure_scheme_headers == {b"x-secure": b"YES \xe9"}
    assert settings.forwarder_headers == {b"script_name", b"remote_user", b"*"}


@pytest.mark.parametrize(
    "headers", [{"X-A": True}, {"X-A": b"on"}, {b"X-A": "on"}, {"X-\u00e9": "on"}, {"X-A": "\u20ac"}]
)
def test_secure_scheme_headers_must_be_strings(headers: dict[Any, Any]) -> None:
    """gunicorn takes any dictionary; one that no request could match stops the boot."""
    assert refusal(secure_scheme_headers=headers).startswith("secure_scheme_headers={")


@pytest.mark.parametrize(
    ("configured", "mode"),
    [("off", "off"), (False, "off"), (True, "auto"), ("auto", "auto"), ("v1", "v1"), ("v2", "v2")],
)
def test_proxy_protocol(configured: object, mode: str) -> None:
    """The mode has one of four names."""
    assert read(proxy_protocol=configured).proxy_protocol == mode


def test_websocket_max_message_size_0_is_none() -> None:
    """0 means no limit."""
    assert read(websocket_max_message_size=0).websocket_max_message_size is None
    assert read(websocket_max_message_size=5).websocket_max_message_size == 5


def test_threads_0_is_one_thread() -> None:
    """gunicorn lets 0 through; a pool without a thread would serve nothing."""
    assert read(threads=0).threads == 1


def test_worker_connections_0_is_refused() -> None:
    """A worker that accepts nothing is a mistake."""
    assert "worker_connections=0" in refusal(worker_connections=0)


def test_is_ssl(tmp_path: Any) -> None:
    """Either file makes it TLS."""
    assert read(certfile=str(tmp_path)).is_ssl is True
    assert read(keyfile=str(tmp_path)).is_ssl is True


def test_sendfile_follows_gunicorn(monkeypatch: pytest.MonkeyPatch) -> None:
    """``--no-sendfile`` turns it off, and so does SENDFILE in the environment."""
    assert read(sendfile=False).sendfile is False
    monkeypatch.setenv("SENDFILE", "no")
    assert read().sendfile is False


def test_script_name_is_of_the_environment() -> None:
    """SCRIPT_NAME comes from the environment, as for gunicorn's own WSGI workers."""
    assert read({"SCRIPT_NAME": "/prefix"}).script_name == "/prefix"


def test_the_server_field_is_that_of_gunicorn(monkeypatch: pytest.MonkeyPatch) -> None:
    """``gunicorn.SERVER``, which a configuration file may set, empty and in latin-1 as well."""
    for name, value in (("mine/1.0", b"mine/1.0"), ("", b""), ("caf\xe9 \t", b"caf\xe9 \t"), (None, b"None")):
        monkeypatch.setattr("gunicorn.SERVER", name)
        assert read().server == value


@pytest.mark.parametrize("name", ["a\r\nX: y", "a\n", "\r", "\0", "\x1b[31m", "\x7f", "\x85", "\u2603"])
def test_a_server_field_that_cannot_be_sent_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would split the head of each response, or none could be encoded."""
    monkeypatch.setattr("gunicorn.SERVER", name)
    with pytest.raises(ConfigurationError, match=r"^gunicorn\.SERVER=.* must be text without line breaks, in latin-1$"):
        read()


def test_environment_is_the_process_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an explicit one, and read at the call, because raw_env changes it."""
    monkeypatch.setenv("SCRIPT_NAME", "/here")
    monkeypatch.setenv("HYBRIDWORKER_MAX_RSS", "512")
    settings = Settings.from_gunicorn(config())
    assert (settings.script_name, settings.max_rss) == ("/here", 512)
    monkeypatch.setenv("HYBRIDWORKER_MAX_RSS", "much")
    with pytest.raises(ConfigurationError):
        check(config())


@pytest.mark.parametrize(
    ("values", "warned"),
    [
        ({}, False),
        ({"forwarded_allow_ips": "127.0.0.0/8,::1"}, False),
        ({"forwarded_allow_ips": "::1,10.0.0.1"}, True),
        ({"forwarded_allow_ips": "*"}, True),
        ({"forwarded_allow_ips": "*", "keepalive": 75}, False),
        ({"forwarded_allow_ips": "*", "keepalive": 0}, False),
        ({"proxy_allow_ips": "*"}, False),
        ({"proxy_allow_ips": "*", "proxy_protocol": "v2"}, True),
        ({"proxy_allow_ips": "10.0.0.0/8", "proxy_protocol": "v1"}, True),
    ],
)
def test_a_default_keepalive_behind_a_distant_proxy_is_one_warning(values: dict[str, Any], warned: bool) -> None:
    """Balancers keep connections for longer than 2 s; a proxy that is not believed is none that we know of."""
    warnings = check(config(**values), {})
    assert [line.partition(" ")[0] for line in warnings] == (["keepalive=2"] if warned else [])


@pytest.mark.parametrize(
    ("value", "reload", "expected"),
    [
        ("", False, math.inf),
        ("", True, 0.0),
        ("0", False, 0.0),
        ("2.5", False, 2.5),
        ("2.5", True, 2.5),
        ("off", True, math.inf),
        ("OFF", False, math.inf),
    ],
)
def test_streams_are_asked_to_end_at_once_where_somebody_reloads(value: str, reload: bool, expected: float) -> None:
    """Without a value nothing is asked of them but with ``--reload``; 0 is no word for off here."""
    config = Config()
    config.set("reload", reload)
    assert Settings.from_gunicorn(config, {"HYBRIDWORKER_STREAM_DRAIN": value}).stream_drain == expected


def test_a_drain_delay_is_at_most_half_of_the_graceful_timeout() -> None:
    """It counts inside of it, and requests need time as well."""
    config = Config()
    config.set("graceful_timeout", 10)
    assert Settings.from_gunicorn(config, {"HYBRIDWORKER_DRAIN_DELAY": "5"}).drain_delay == 5
    with pytest.raises(ConfigurationError, match="graceful_timeout"):
        Settings.from_gunicorn(config, {"HYBRIDWORKER_DRAIN_DELAY": "5.1"})


def test_one_path_has_one_meaning() -> None:
    """Health and metrics cannot both be answered there."""
    paths = {"HYBRIDWORKER_HEALTH_PATH": "/x", "HYBRIDWORKER_METRICS_PATH": "/x"}
    with pytest.raises(ConfigurationError, match="two paths"):
        Settings.from_gunicorn(Config(), paths)


# -- uwsgi


def test_uwsgi_is_what_every_connection_speaks() -> None:
    """The peers may be networks, and ``*`` is any."""
    settings = read(protocol="uwsgi", uwsgi_allow_ips="10.0.0.0/8,::1")
    assert settings.protocol == "uwsgi"
    assert settings.uwsgi_networks == networks(["10.0.0.0/8", "::1"])
    assert read(uwsgi_allow_ips="*").uwsgi_networks is None
    assert check(config(protocol="uwsgi", uwsgi_allow_ips="*"), {}) == []


def test_uwsgi_knows_no_http2() -> None:
    """Neither by ALPN nor by prior knowledge; one warning says so."""
    for more in ({"certfile": __file__}, {"http2_cleartext": "prior-knowledge"}):
        values: dict[str, Any] = {"protocol": "uwsgi", "http_protocols": "h2,h1", **more}
        settings = read(**values)
        assert (settings.alpn, settings.cleartext, settings.http2) == ((), "off", False)
        [warning] = check(config(**values), {})
        assert warning == "http_protocols=['h2', 'h1']: HTTP/2 is not served, because protocol is uwsgi"


def test_uwsgi_needs_no_keepalive() -> None:
    """Its proxies keep no connections, so there is nothing to warn of."""
    assert check(config(protocol="uwsgi", forwarded_allow_ips="10.0.0.5"), {}) == []


# -- HTTP/2


@pytest.mark.parametrize(
    ("value", "alpn"),
    [("h1", ("http/1.1",)), ("h2,h1", ("h2", "http/1.1")), ("h1,h2", ("http/1.1", "h2")), ("h2", ("h2",))],
)
def test_alpn_is_http_protocols_in_their_order(value: str, alpn: tuple[str, ...]) -> None:
    """What TLS clients are offered."""
    assert read(http_protocols=value).alpn == alpn


@pytest.mark.parametrize(
    ("values", "cleartext", "warned"),
    [
        ({}, "off", ""),
        ({"http_protocols": "h2,h1"}, "off", ""),
        ({"http_protocols": "h2,h1", "http2_cleartext": "prior-knowledge"}, "prior-knowledge", ""),
        ({"http_protocols": "h2", "http2_cleartext": True}, "prior-knowledge", ""),
        ({"http_protocols": "h2,h1", "http2_cleartext": "both"}, "both", "RFC 9113 dropped it"),
        ({"http_protocols": "h2,h1", "http2_cleartext": "upgrade"}, "off", "RFC 9113 dropped it"),
        ({"http2_cleartext": "prior-knowledge"}, "off", "http_protocols lacks h2"),
        ({"http_protocols": "h2", "http2_cleartext": "both", "certfile": __file__}, "off", "under TLS"),
    ],
)
def test_cleartext_is_what_has_an_effect(values: dict[str, Any], cleartext: str, warned: str) -> None:
    """Without TLS, with h2 among the protocols, by prior knowledge; one warning tells what is not obeyed."""
    settings = read(**values)
    assert settings.cleartext == cleartext
    assert settings.http2 == (cleartext != "off" or settings.is_ssl)
    warnings = check(config(**values), {})
    assert len(warnings) == bool(warned)
    assert all(warned in line and line.startswith("http2_cleartext=") for line in warnings)


def test_http2_is_spoken_under_tls_when_it_is_offered() -> None:
    """It is chosen by ALPN there."""
    assert read(certfile=__file__, http_protocols="h2,h1").http2 is True
    assert read(certfile=__file__).http2 is False


def test_the_settings_of_http2_are_those_of_gunicorn() -> None:
    """0 for the header list is no limit in gunicorn, and 1 MiB here."""
    settings = read(
        http2_max_concurrent_streams=7,
        http2_initial_window_size=70000,
        http2_max_frame_size=20000,
        http2_max_header_list_size=0,
    )
    assert settings.http2_max_concurrent_streams == 7
    assert settings.http2_initial_window_size == 70000
    assert settings.http2_max_frame_size == 20000
    assert settings.http2_max_header_list_size == MIB


@pytest.mark.parametrize(
    ("values", "warned"), [({}, True), ({"accesslog": "-"}, False), ({"syslog": True}, False)], ids=str
)
def test_json_without_an_access_log_is_warned_of(values: dict[str, Any], warned: bool) -> None:
    """A variable that does nothing is named."""
    cfg = Config()
    for name, value in values.items():
        cfg.set(name, value)
    warnings = check(cfg, {"HYBRIDWORKER_ACCESS_JSON": "on"})
    assert any(line.startswith("HYBRIDWORKER_ACCESS_JSON has no effect") for line in warnings) is warned
