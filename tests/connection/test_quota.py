"""RequestQuota: how many requests a worker has begun, and after how many it is replaced."""

from __future__ import annotations

from hybridworker.connection.quota import RequestQuota


def test_the_worker_recycles_once() -> None:
    """At ``max_requests``, and not again for requests that were under way."""
    calls: list[int] = []
    quota = RequestQuota(3)
    quota.used_up = lambda: calls.append(quota.served)
    for _ in range(5):
        quota.count()
    assert calls == [3]
    assert quota.served == 5
