"""The ``HYBRIDWORKER_*`` variables."""

from __future__ import annotations

import dataclasses
import math

import pytest
from gunicorn.config import Config
from hypothesis import given
from hypothesis import strategies as st

from hybridworker.config.settings import Settings
from hybridworker.config.variables import SERVICE_LINK, VARIABLES, near_misses, read_variables
from hybridworker.errors import ConfigurationError
from tests.config.configured import read, refusal


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
        assert isinstance(value, str | bytes | tuple | None) or value >= 0


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


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("HYBRID_WORKER_MAX_RSS", "HYBRIDWORKER_MAX_RSS"),
        ("HYBRIDWORKERMAX_RSS", "HYBRIDWORKER_MAX_RSS"),
        ("HYBRIDWORKERS_SLOW_LOOP", "HYBRIDWORKER_SLOW_LOOP"),
        ("HYBIRDWORKER_INTERFACE", "HYBRIDWORKER_INTERFACE"),
        ("hybrid_worker_ws_compression", "HYBRIDWORKER_WS_COMPRESSION"),
        ("HYBRIDWORKER_MAX_RSS", None),
        ("HYBRIDWORKER_MAX_RSSS", None),
        ("HYBRID_WORKER_COUNT", None),
        ("UVICORN_WORKER_MAX_AGE", None),
        ("MAX_RSS", None),
    ],
)
def test_a_misspelt_prefix_is_warned_about(name: str, nearest: str | None) -> None:
    """Where the rest is a variable of ours; it may be somebody else's, so it is no error."""
    lines = near_misses({name: "1"})
    assert lines == ([] if nearest is None else [f"{name} is not a variable of hybridworker; did you mean {nearest}?"])


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


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("/healthz", ("/healthz",)),
        (" /healthz , /static/* ", ("/healthz", "/static/*")),
        ("/café", ("/café",)),
        ("/*", ("/*",)),
    ],
)
def test_paths_that_are_skipped(text: str, value: tuple[str, ...]) -> None:
    """Decoded paths, and prefixes."""
    assert read_variables({"HYBRIDWORKER_ACCESS_SKIP": text})["access_skip"] == value
    assert read_variables({})["access_skip"] == ()


@pytest.mark.parametrize("text", ["healthz", "/a,", "/*/b", "/a**", "*", "/a\n/b", ","])
def test_what_is_no_list_of_paths(text: str) -> None:
    """A mistake is named."""
    with pytest.raises(ConfigurationError, match="must be decoded paths such as /healthz, or prefixes"):
        read_variables({"HYBRIDWORKER_ACCESS_SKIP": text})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("off", None),
        ("On", ()),
        ("h, r,s", ("h", "r", "s")),
        ("{x-request-id}i,{hybridworker.part}e,{a}o", ("{x-request-id}i", "{hybridworker.part}e", "{a}o")),
    ],
)
def test_the_atoms_of_a_line_of_json(text: str, value: tuple[str, ...] | None) -> None:
    """Off, the usual ones, or those that were chosen."""
    assert read_variables({"HYBRIDWORKER_ACCESS_JSON": text})["access_json"] == value


@pytest.mark.parametrize("text", ["yes", "h,,r", "h r", "{x}z", "{}i", "h,h", "b,B", "{a}i,{A}i", "%(h)s", "{a b}i"])
def test_what_are_no_atoms(text: str) -> None:
    """Nor may two have the same name."""
    with pytest.raises(ConfigurationError, match="must be on, off or atoms of gunicorn's"):
        read_variables({"HYBRIDWORKER_ACCESS_JSON": text})


@pytest.mark.parametrize(
    ("text", "value"), [("", b""), ("X-Request-ID", b"x-request-id"), ("traceparent", b"traceparent"), ("x1", b"x1")]
)
def test_the_field_of_the_id(text: str, value: bytes) -> None:
    """Compared without regard to case."""
    assert read_variables({"HYBRIDWORKER_REQUEST_ID": text})["request_id"] == value


@pytest.mark.parametrize("text", ["x_request_id", "x request", "-x", "on\r\nx", "Host", "content-length", "sec-x", "é"])
def test_what_cannot_hold_an_id(text: str) -> None:
    """A field that frames a message or means something else."""
    with pytest.raises(ConfigurationError, match="must be the name of a field such as x-request-id"):
        read_variables({"HYBRIDWORKER_REQUEST_ID": text})


def test_the_field_of_the_id_says_nothing_about_the_scheme() -> None:
    """The two would be replaced and believed at once."""
    line = refusal({"HYBRIDWORKER_REQUEST_ID": "x-ssl"}, secure_scheme_headers={"X-SSL": "on"})
    assert line == "HYBRIDWORKER_REQUEST_ID must not be one of secure_scheme_headers"
