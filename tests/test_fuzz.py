"""
Mutants of valid requests: whatever arrives, the protocol does not raise, and reads the same in every segmentation.

The profile is derandomised, so that a build never fails by chance. ``FUZZ_EXAMPLES=5000`` in
the environment asks for so many random examples instead.
"""

from __future__ import annotations

import os
import re

from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from tests.corpus import Case, converse, cut, running_loop
from tests.mutations import CUTS, mutants, places

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "0"))

fuzzing = settings(
    max_examples=EXAMPLES or 300,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example],
)


def check_answers(case: Case, segments: list[bytes]) -> tuple[object, ...]:
    """One conversation: each complete request has its 200, and at most one refusal ends the connection."""
    with running_loop() as loop:
        outcome = converse(loop, case, segments)
    statuses = outcome.statuses()
    refused = len(statuses) - len(outcome.requests)
    assert statuses[: len(outcome.requests)] == [200] * len(outcome.requests)
    assert refused in (0, 1)
    assert all(status >= 400 for status in statuses[len(outcome.requests) :])
    assert not (refused and outcome.open)
    assert len(outcome.lines) == refused
    assert outcome.unfinished <= 1
    for seen in outcome.requests:
        assert re.fullmatch(rb"[\x21-\x7e]+", seen.scope["hybridworker.target"])
        for name, value in seen.scope["headers"]:
            assert re.fullmatch(rb"[!#$%&'*+.^_`|~0-9a-z-]+", name)
            assert re.fullmatch(rb"[\t\x20-\x7e\x80-\xff]*", value)
    event("refused" if refused else "open" if outcome.open else "closed")
    return outcome.comparable()


@fuzzing
@given(case=mutants(), first=CUTS, second=CUTS)
def test_mutants_are_read_the_same_however_they_are_cut(
    case: Case, first: list[int] | int, second: list[int] | int
) -> None:
    """Two random segmentations, and none: the same requests, bodies and answers, and no exception."""
    whole = check_answers(case, [case.data])
    for cuts in (first, second):
        assert check_answers(case, cut(case.data, places(cuts, len(case.data)))) == whole


@fuzzing
@given(noise=st.binary(max_size=200), cuts=CUTS)
def test_noise_is_refused_or_waited_for(noise: bytes, cuts: list[int] | int) -> None:
    """Bytes that nobody chose reach no application unless they are a request."""
    case = Case("noise", noise)
    assert check_answers(case, cut(noise, places(cuts, len(noise)))) == check_answers(case, [noise])
