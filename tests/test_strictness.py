"""
gunicorn's own parser as an oracle: whatever it refuses is refused here, and what both take is the same request.

A request that one server on the way refuses, and another one takes, is what smuggling is
made of; users who come from another worker of gunicorn lose nothing. The differences
that remain, on purpose:

* This worker refuses more (RTSP and ICE, a second empty line, fragments, malformed Host, ...).
  That is never a difference here.
* gunicorn takes several tokens of Connection by the first field alone, and so goes on, or
  closes, where this worker does not. Only requests that both read are compared.
* A trailer with an underscore in its name: gunicorn applies ``header_map`` to it and may
  refuse it; here trailers reach nobody, so there is nothing to map.
* Two of the same singleton among the trailers (Content-Type): the same.
* UNKNOWN in PROXY v1, and a family of UNSPEC with a datagram or unspecified transport in
  v2: gunicorn's WSGI parser refuses them, its ASGI worker and the specification do not.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http.errors import ConfigurationProblem, NoMoreData, ParseException
from gunicorn.http.parser import RequestParser
from hypothesis import event, given

from hybridworker.asgi import Headers
from tests.corpus import Case, Seen, converse, corpus, running_loop
from tests.mutations import mutants
from tests.oracle import of_gunicorn_27
from tests.test_fuzz import fuzzing

pytestmark = of_gunicorn_27

#: Settings of a case that gunicorn has as well, by the same name.
SHARED = (
    "limit_request_line",
    "limit_request_fields",
    "limit_request_field_size",
    "header_map",
    "proxy_protocol",
    "permit_unconventional_http_method",
    "casefold_http_method",
    "permit_unconventional_http_version",
    "strip_header_spaces",
    "permit_obsolete_folding",
)

Parsed = tuple[str, str, str, list[tuple[str, str]], bytes]


def gunicorn_reads(case: Case) -> tuple[list[Parsed], str | None]:
    """The complete requests that gunicorn takes out of ``case``, and what it refuses the next one with."""
    cfg = Config()
    cfg.set("http_parser", "python")
    for name in SHARED:
        if name in case.settings:
            cfg.set(name, case.settings[name])
    peer: Any = "" if case.peer == "unix" else (case.peer, 40000)
    parsed: list[Parsed] = []
    try:
        for request in RequestParser(cfg, iter([case.data]), peer):
            body = request.body.read()
            length = [int(value) for name, value in request.headers if name == "CONTENT-LENGTH"]
            if length and len(body) < length[0]:
                break  # cut short: gunicorn's reader does not tell
            version = "{}.{}".format(*request.version)
            parsed.append((request.method, request.uri, version, request.headers, body))
    except (NoMoreData, StopIteration):
        pass  # unfinished
    except (ParseException, ConfigurationProblem, ValueError) as exc:  # ValueError: NUL in an address of PROXY v1
        return parsed, f"{type(exc).__name__}: {exc}"
    return parsed, None


def as_gunicorn(seen: Seen) -> Parsed:
    """A request of ours, in gunicorn's terms."""
    scope = seen.scope
    headers: Headers = list(scope["headers"])
    return (
        scope["method"],
        scope["hybridworker.target"].decode("latin-1"),
        scope["http_version"],
        [(name.decode("latin-1").upper(), value.decode("latin-1")) for name, value in headers],
        seen.body,
    )


def without_host(request: Parsed) -> Parsed:
    """An absolute-form target replaces Host here, and not in gunicorn: everything but that field."""
    method, target, version, headers, body = request
    kept = [field for field in headers if field[0] != "HOST"] if "://" in target.partition("/")[0] + "//" else headers
    return method, target, version, kept, body


def is_allowed(case: Case, refusal: str) -> bool:
    """The last three differences of the list above."""
    if re.search(r"InvalidProxyLine.*UNKNOWN", refusal) or "only TCP protocol" in refusal:
        return True
    trailers = case.data.lower()
    return ("Invalid HTTP header name" in refusal and "_" in refusal) or (
        "CONTENT-TYPE" in refusal and b"chunked" in trailers
    )


def compare(case: Case) -> bool:
    """Everything gunicorn refuses is refused, and what both take is the same; returns whether it refuses something."""
    theirs, refusal = gunicorn_reads(case)
    with running_loop() as loop:
        outcome = converse(loop, case, [case.data])
    ours = [as_gunicorn(seen) for seen in outcome.requests]
    for our, their in zip(ours, theirs, strict=False):
        assert without_host(our) == without_host(their)
    assert refusal is None or len(ours) <= len(theirs) or is_allowed(case, refusal), refusal
    return refusal is not None


@pytest.mark.parametrize("case", corpus("valid") + corpus("invalid"), ids=str)
def test_the_corpus_is_read_at_least_as_strictly_as_by_gunicorn(case: Case) -> None:
    """No file of the corpus gets further here than there."""
    compare(case)


@fuzzing
@given(case=mutants())
def test_mutants_are_read_at_least_as_strictly_as_by_gunicorn(case: Case) -> None:
    """Nor does any mutant."""
    event(f"gunicorn refuses: {compare(case)}")


@pytest.mark.parametrize("case", corpus("valid"), ids=str)
def test_gunicorn_takes_the_valid_corpus(case: Case) -> None:
    """The oracle works: what is valid here is valid there, but for what stands in the list."""
    theirs, refusal = gunicorn_reads(case)
    if refusal is None:
        assert len(theirs) >= 1
    else:
        assert is_allowed(case, refusal), refusal
