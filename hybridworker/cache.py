"""
The one policy of all caches: a plain dictionary that is emptied when it is full.

Clients and applications choose the keys, so a cache must be bounded. If a full cache just refused new keys, one client
could fill it with junk for ever. An emptied cache fills up again with what is in use. This is a function, not a class,
because a lookup in a subclass of ``dict`` takes 1.5 times as long. Either side of the thread border: each step is
atomic.
"""

from __future__ import annotations

from typing import TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")

#: How many keys a cache holds.
LIMIT = 1024

#: Characters of a path that is remembered, at most: a client must not fill memory with paths.
KNOWN_MAX = 256


def remember(cache: dict[Key, Value], key: Key, value: Value) -> Value:
    """Store ``value`` in ``cache``, which is emptied first if it is full. Returns ``value``."""
    if len(cache) >= LIMIT:
        cache.clear()
    cache[key] = value
    return value
