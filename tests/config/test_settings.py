"""settings.py: conversions, our variables, and the table of gunicorn's settings."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from ipaddress import IPv4Network, IPv6Network
from typing import Any

import gunicorn
import pytest
from gunicorn.config import KNOWN_SETTINGS, Config
from hypothesis import given
from hypothesis import strategies as st

from hybridworker.config import settings as module
from hybridworker.config.settings import SERVICE_LINK, SETTINGS, VARIABLES, Fate, Settings, check
from hybridworker.errors import ConfigurationError

MIB = 1024 * 1024
#: Settings that came with a gunicorn newer than the oldest supported one.
NEW = {"http2_cleartext", "websocket_max_message_size"}


def config(**values: Any) -> Any:
    """gunicorn's configuration with some settings. Skips the test where this gunicorn is too old to have one."""
    cfg = Config()
    for name, value in values.items():
        if name in NEW and name not in cfg.settings:
            pytest.skip(f"gunicorn {gunicorn.__version__} has no {name}")
        cfg.set(name, value)
    return cfg


def read(environ: dict[str, str] | None = None, **values: Any) -> Settings:
    """The settings of a worker with these of gunicorn's, in this environment alone."""
    return Settings.from_gunicorn(config(**values), environ or {})


def refusal(environ: dict[str, str] | None = None, **values: Any) -> str:
    """The one line with which a configuration is refused, by the master and by a worker alike."""
    with pytest.raises(ConfigurationError) as by_worker:
        read(environ, **values)
    with pytest.raises(ConfigurationError) as by_master:
        check(config(**values), environ or {})
    assert str(by_master.value) == str(by_worker.value)
    assert "\n" not in str(by_worker.value)
    return str(by_worker.value)


# -- conversions


def test_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing configured every field has gunicorn's default, converted, or ours."""
    monkeypatch.delenv("SENDFILE", raising=False)
    settings = read(workers=1, forwarded_allow_ips="127.0.0.1,::1")
    local = (IPv4Network("127.0.0.1/32"), IPv6Network("::1/128"))
    assert dataclasses.asdict(dataclasses.replace(settings, secure_scheme_headers={})) == {
        "interface": "auto",
        "workers": 1,
        "threads": 1,
        "worker_connections": 1000,
        "timeout": 30.0,
        "body_timeout": 30.0,
        "graceful_timeout": 30.0,
        "keepalive": 2.0,
        "drain_window": 2.0,
        "first_window": 2.0,
        "header_timeout": 15.0,
        "write_timeout": 60.0,
        "slow_loop": 1.0,
        "reload": False,
        "reuse_port": False,
        "is_ssl": False,
        "sendfile": True,
        "max_rss": 0,
        "drain_delay": 0.0,
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


# -- our own variables


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("INTERFACE", "asgi", "asgi"),
        ("INTERFACE", "asgi2", "asgi2"),
        ("INTERFACE", " WSGI\n", "wsgi"),
        ("FORWARDED_CLIENT", "on", "on"),
        ("FORWARDED_CLIENT", "off", "off"),
        ("HEADER_TIMEOUT", "2.5", 2.5),
        ("HEADER_TIMEOUT", "0", math.inf),
        ("WRITE_TIMEOUT", "90", 90.0),
        ("WRITE_TIMEOUT", "0.0", math.inf),
        ("WS_COMPRESSION", "off", False),
        ("WS_COMPRESSION", "On", True),
        ("WS_PING_INTERVAL", "0", math.inf),
        ("SLOW_LOOP", "0.1", 0.1),
        ("SLOW_LOOP", "0", 0.0),
        ("MAX_RSS", "512", 512),
        ("MAX_RSS", "0", 0),
    ],
)
def test_variables_are_typed(name: str, text: str, value: object) -> None:
    """The text becomes a value of the field's type; blanks around it and capitals do not matter."""
    found = getattr(read({f"HYBRIDWORKER_{name}": text}), name.lower())
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize("text", ["", " "])
def test_an_empty_variable_is_not_set(text: str) -> None:
    """Container tools pass a variable that nobody set as an empty one."""
    assert read(dict.fromkeys(VARIABLES, text)) == read()


@pytest.mark.parametrize(
    ("name", "text", "allowed"),
    [
        ("INTERFACE", "asgi3", "auto, asgi, asgi2 or wsgi"),
        ("FORWARDED_CLIENT", "yes", "auto, on or off"),
        ("WS_COMPRESSION", "1", "on or off"),
        *(("HEADER_TIMEOUT", text, "a number of seconds") for text in ("-1", "+1", "1e3", "1_0", "inf", "nan", "15s")),
        *(
            ("WRITE_TIMEOUT", text, "a number of seconds")
            for text in (".", "1.", ".5", "1.2.3", "1,5", "\u0661", "9" * 13)
        ),
        *(("MAX_RSS", text, "a whole number of MiB") for text in ("-1", "1.5", "512M", "1_0", "\u0661", "9" * 5000)),
    ],
)
def test_a_bad_value_is_one_clear_line(name: str, text: str, allowed: str) -> None:
    """The line names the variable, the value and what is allowed."""
    line = refusal({f"HYBRIDWORKER_{name}": text})
    assert line.startswith(f"HYBRIDWORKER_{name}={text!r} must be {allowed}")


@given(st.sampled_from(sorted(VARIABLES)), st.text())
def test_any_text_gives_a_value_or_one_line(name: str, text: str) -> None:
    """No text has another outcome than a value that can be used, or the error."""
    try:
        settings = read({name: text})
    except ConfigurationError as exc:
        assert len(str(exc).splitlines()) == 1
    else:
        value = getattr(settings, name.removeprefix("HYBRIDWORKER_").lower())
        assert isinstance(value, str) or value >= 0


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("HYBRIDWORKER_INTERFCE", "HYBRIDWORKER_INTERFACE"),
        ("HYBRIDWORKER_HEADERS_TIMEOUT", "HYBRIDWORKER_HEADER_TIMEOUT"),
        ("HYBRIDWORKER_COMPRESSION", "HYBRIDWORKER_WS_COMPRESSION"),
        ("HYBRIDWORKER_MAX_RSS_MB", "HYBRIDWORKER_MAX_RSS"),
        ("HYBRIDWORKER_interface", "HYBRIDWORKER_INTERFACE"),
        ("hybridworker_slow_loop", "HYBRIDWORKER_SLOW_LOOP"),
        ("HYBRIDWORKER_WS_PING", "HYBRIDWORKER_WS_PING_INTERVAL"),
    ],
)
def test_a_misspelt_name_gets_the_right_one(name: str, nearest: str) -> None:
    """An unknown variable stops the boot, and the nearest one is suggested, whatever its value is."""
    line = refusal({name: ""})
    assert line == f"{name} is not a variable of hybridworker; did you mean {nearest}?"


@pytest.mark.parametrize("name", ["HYBRIDWORKER_", "HYBRIDWORKER_QQQ"])
def test_a_strange_name_gets_all(name: str) -> None:
    """Where nothing is near, the line lists what there is."""
    line = refusal({name: "1"})
    assert line.startswith(f"{name} is not a variable of hybridworker; there are HYBRIDWORKER_INTERFACE, ")
    assert all(variable in line for variable in VARIABLES)


@pytest.mark.parametrize("service", ["HYBRIDWORKER", "HYBRIDWORKER_WEB", "HYBRIDWORKER_WEB_2"])
def test_service_links_are_ignored(service: str) -> None:
    """A Kubernetes service of our name, or one that begins with it, does not stop the boot."""
    links = ["SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "SERVICE_PORT_HTTP_ALT", "PORT"]
    for protocol in ("TCP", "UDP", "SCTP"):
        links += [f"PORT_8000_{protocol}{part}" for part in ("", "_ADDR", "_PORT", "_PROTO")]
    assert read({f"{service}_{link}": "tcp://10.0.0.1:8000" for link in links}) == read()


@pytest.mark.parametrize(
    "name", ["SERVICE", "SERVICE_HOSTS", "PORTS", "PORT_HTTP_TCP", "PORT_80_TCP_NAME", "PORT_80_XTP"]
)
def test_what_is_no_service_link_is_refused(name: str) -> None:
    """Only the names that Kubernetes makes are ignored."""
    assert f"HYBRIDWORKER_{name} is not a variable" in refusal({f"HYBRIDWORKER_{name}": "1"})


def test_other_variables_are_nobodys_business() -> None:
    """Only names with our prefix are looked at."""
    assert read({"HYBRIDWORKERS": "1", "MY_HYBRIDWORKER_X": "1", "HYBRID": "1"}) == read()


@pytest.mark.parametrize("name", sorted(VARIABLES))
def test_variable_rows(name: str) -> None:
    """Each row has a field of its name, a default that is valid, a remark, and a name unlike a service link."""
    row = VARIABLES[name]
    row.kind.parse(row.default)
    assert name.removeprefix("HYBRIDWORKER_").lower() in {field.name for field in dataclasses.fields(Settings)}
    assert row.remark
    assert not SERVICE_LINK.fullmatch(name)


# -- gunicorn's settings


def test_every_setting_of_gunicorn_has_a_row() -> None:
    """A new gunicorn's new setting must be thought about."""
    known = {setting.name for setting in KNOWN_SETTINGS}
    assert known - SETTINGS.keys() == set()
    assert SETTINGS.keys() - known <= NEW


def test_no_setting_has_two_rows() -> None:
    """The table is made from groups; a name in two of them would hide one."""
    names = [name for remarks in module._REMARKS.values() for group in remarks for name in group.split()]
    assert [name for name, count in Counter(names).items() if count > 1] == []
    assert all(row.remark for row in SETTINGS.values())


def test_every_setting_read_is_obeyed() -> None:
    """A field that has the name of a setting belongs to one that is obeyed; only ``workers`` is gunicorn's as well."""
    fields = {field.name for field in dataclasses.fields(Settings)}
    for name in fields & SETTINGS.keys() - {"workers"}:
        assert SETTINGS[name].fate is Fate.OBEYED, name


def test_defaults_give_no_warning() -> None:
    """A boot without configuration is quiet."""
    assert check(config(), {}) == []


WARNED: list[tuple[str, object, object]] = [
    ("permit_unconventional_http_method", True, True),
    ("permit_unconventional_http_version", True, True),
    ("permit_obsolete_folding", True, True),
    ("strip_header_spaces", True, True),
    ("casefold_http_method", True, True),
    ("suppress_ragged_eofs", False, False),
    ("http_protocols", "h2,h1", ["h2", "h1"]),
    ("http2_max_concurrent_streams", 10, 10),
    ("http2_initial_window_size", 70000, 70000),
    ("http2_max_frame_size", 20000, 20000),
    ("http2_max_header_list_size", 0, 0),
    ("uwsgi_allow_ips", "*", ["*"]),
]


@pytest.mark.parametrize(("name", "value", "shown"), WARNED)
def test_a_refused_setting_is_one_warning(name: str, value: object, shown: object) -> None:
    """A value other than the default warns, with the reason of the table; the default, set explicitly, does not."""
    remark = SETTINGS[name].remark
    assert check(config(**{name: value}), {}) == [f"{name}={shown!r} has no effect with this worker: {remark}"]
    default = next(setting for setting in KNOWN_SETTINGS if setting.name == name).default
    assert check(config(**{name: default}), {}) == []


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


def test_every_refused_setting_warns_or_stops() -> None:
    """The cases above, and the two that stop the boot, are all refused settings there are."""
    refused = {name for name, row in SETTINGS.items() if row.fate is Fate.REFUSED}
    assert refused == {name for name, _, _ in WARNED} | {"protocol", "http2_cleartext"}


def test_settings_of_others_do_not_warn() -> None:
    """What gunicorn does by itself, and what is obeyed, may have any value."""
    assert check(config(http_parser="python", tmp_upload_dir="/tmp", timeout=1, threads=4, backlog=1), {}) == []


@pytest.mark.parametrize(
    ("name", "value", "advice"),
    [
        ("protocol", "uwsgi", "proxy_pass"),
        ("http2_cleartext", "prior-knowledge", "set it to off"),
        ("http2_cleartext", "upgrade", "set it to off"),
        ("http2_cleartext", "both", "set it to off"),
        ("http2_cleartext", True, "set it to off"),
    ],
)
def test_protocols_that_would_be_misread_stop_the_boot(name: str, value: object, advice: str) -> None:
    """The line names the setting and says what to do."""
    line = refusal({}, **{name: value})
    assert line.startswith(f"{name}=")
    assert advice in line


def test_an_older_gunicorn_may_lack_a_setting() -> None:
    """What is not there neither warns nor fails, and has the default of a newer gunicorn."""
    older = config()
    for name in NEW:
        older.settings.pop(name, None)
    assert check(older, {}) == []
    assert Settings.from_gunicorn(older, {}).websocket_max_message_size == 16 * MIB


def test_paths_are_kept_as_they_are_written() -> None:
    """Only words like ``on`` are compared without regard to case."""
    settings = Settings.from_gunicorn(
        Config(), {"HYBRIDWORKER_HEALTH_PATH": " /Health ", "HYBRIDWORKER_WS_COMPRESSION": "OFF"}
    )
    assert (settings.health_path, settings.ws_compression) == ("/Health", False)


@pytest.mark.parametrize("path", ["health", "/a b", "/a?b", "/a%20b", "/\u00e9"])
def test_a_path_is_plain(path: str) -> None:
    """It is compared with the decoded path of a request."""
    with pytest.raises(ConfigurationError, match="HYBRIDWORKER_METRICS_PATH"):
        Settings.from_gunicorn(Config(), {"HYBRIDWORKER_METRICS_PATH": path})


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
