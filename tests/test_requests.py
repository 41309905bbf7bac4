"""The corpus of ``tests/requests``: every file, however its bytes are cut, has the one outcome that it states."""

from __future__ import annotations

import re

import pytest

from hybridworker.connection.scope import decode_path
from tests.corpus import Case, Expected, Outcome, Seen, converse, corpus, running_loop, segmentations, unescape


def check_request(expected: Expected, seen: Seen, case: Case) -> None:
    """The parts of a scope that a case states, and its body."""
    scope = seen.scope
    raw_path = expected.path.encode("ascii") if expected.raw_path is None else expected.raw_path
    assert scope["type"] == "http"
    assert (scope["method"], scope["path"], scope["http_version"]) == (expected.method, expected.path, expected.version)
    assert scope["raw_path"] == raw_path
    assert decode_path(raw_path) == expected.path
    assert scope["query_string"] == expected.query
    assert list(scope["headers"]) == expected.headers
    assert seen.body == expected.body
    assert scope["scheme"] == expected.scheme
    client = expected.client or ("none" if case.peer == "unix" else f"{case.peer} 40000")
    assert "none" if scope["client"] is None else "{} {}".format(*scope["client"]) == client
    proxy = scope.get("hybridworker.proxy")
    assert (None if proxy is None else " ".join(proxy.values())) == expected.proxy


def check(case: Case, outcome: Outcome) -> None:
    """What a case states."""
    assert len(outcome.requests) == len(case.requests)
    for expected, seen in zip(case.requests, outcome.requests, strict=True):
        check_request(expected, seen, case)
    refusal = [] if case.status is None else [case.status]
    assert outcome.statuses() == [200] * len(case.requests) + refusal
    assert outcome.open is case.open
    assert outcome.unfinished <= case.may_be_called
    assert [level for level, _ in outcome.lines] == ["warning"] * len(refusal)


@pytest.mark.parametrize("case", corpus("valid") + corpus("invalid"), ids=str)
def test_a_conversation_has_one_outcome_however_it_is_cut(case: Case) -> None:
    """Whole, byte by byte, and cut at every position: the same scopes, bodies and response bytes."""
    with running_loop() as loop:
        first = None
        for segments in segmentations(case.data):
            outcome = converse(loop, case, segments)
            check(case, outcome)
            if first is None:
                first = outcome
            assert outcome.comparable() == first.comparable()


@pytest.mark.parametrize("case", [case for case in corpus("valid") if case.open], ids=str)
def test_a_refusal_follows_good_requests_in_its_turn(case: Case) -> None:
    """What cannot begin a request, behind whatever good requests, is a 400 after all their answers."""
    with running_loop() as loop:
        outcome = converse(loop, case, [case.data + b"\x00"])
        assert outcome.statuses() == [200] * len(case.requests) + [400]
        assert not outcome.open


def test_the_corpus_is_large_and_names_its_sources() -> None:
    """At least 140 files; each names an RFC section, or a section of proxy-protocol.txt, and a rule in one sentence."""
    cases = corpus("valid") + corpus("invalid")
    assert len(cases) >= 140
    for case in cases:
        assert re.fullmatch(r"([1-9]\d{3}|proxy-protocol\.txt) \d+(\.\d+)*", case.rfc), case.name
        assert re.fullmatch(r"[A-Z0-9].*\.", case.note), case.name


@pytest.mark.parametrize(
    ("text", "data"), [(rb"a\r\n\t\\\x00\xff", b"a\r\n\t\\\0\xff"), (rb"\\x41", b"\\x41"), (b"", b"")]
)
def test_escapes_of_the_corpus(text: bytes, data: bytes) -> None:
    """What a file shows is what is sent."""
    assert unescape(text) == data


def test_an_unknown_escape_is_no_byte() -> None:
    """A backslash by itself would be a mistake in a file."""
    with pytest.raises(AssertionError, match="begins no escape"):
        unescape(rb"\q")
