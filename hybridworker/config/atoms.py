"""
The atoms of gunicorn's access log, and what each is called in a line of JSON.

:data:`NAMES` is the documentation, and README.rst is tested against it. :mod:`..log.jsonline` makes the values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple


class Atom(NamedTuple):
    """What stands in a line of JSON for an atom of gunicorn's."""

    name: str
    meaning: str


NAMES: Mapping[str, Atom] = {
    "t": Atom("time", "when the line was written, in UTC: 2026-01-31T23:59:59.123456Z (RFC 3339)"),
    "h": Atom("remote_addr", "address of the client; empty on a unix socket"),
    "l": Atom("ident", "always null"),
    "u": Atom("user", "name in a basic Authorization"),
    "r": Atom("request", "request line: method, target as received, protocol"),
    "m": Atom("method", "GET for a WebSocket"),
    "U": Atom("path", "decoded, as UTF-8; for WSGI without SCRIPT_NAME"),
    "q": Atom("query", "as received, without its question mark"),
    "H": Atom("protocol", "HTTP/1.1 for example"),
    "s": Atom("status", "a number; 499 where the client left before there was one"),
    "b": Atom("bytes", "bytes of body, a number"),
    "B": Atom("bytes", "the same"),
    "f": Atom("referer", "the field of that name"),
    "a": Atom("user_agent", "the field of that name"),
    "T": Atom("duration_s", "whole seconds, a number"),
    "M": Atom("duration_ms", "whole milliseconds, a number"),
    "D": Atom("duration_us", "microseconds, a number"),
    "L": Atom("duration", "seconds with their fraction, a number"),
    "p": Atom("pid", "of the worker, a number"),
}

#: Kind of a named atom -> what stands before its name. ``hybridworker.`` itself is left away: ``{hybridworker.part}e``
#: is ``part``.
PREFIXES = {"i": "request.", "o": "response.", "e": "environ."}

OWN = "hybridworker."

#: What ``on`` stands for. Whatever else there is repeats these.
USUAL = ("t", "h", "u", "m", "U", "q", "H", "s", "B", "D", "f", "a", "p")

_NAMED = re.compile(r"\{([^{}\s]+)\}([ioe])")


def named(atom: str) -> tuple[str, str] | None:
    """Name and kind (``i``, ``o`` or ``e``) of an atom such as ``{x-request-id}i``; None of any other."""
    match = _NAMED.fullmatch(atom)
    return None if match is None else (match[1].lower(), match[2])


def name_of(atom: str) -> str:
    """What ``atom`` is called in a line of JSON. Raises KeyError for what is no atom."""
    found = named(atom)
    if found is None:
        return NAMES[atom].name
    name, kind = found
    return name.removeprefix(OWN) if kind == "e" and name.startswith(OWN) else PREFIXES[kind] + name


def chosen(text: str) -> tuple[str, ...] | None:
    """
    The value of HYBRIDWORKER_ACCESS_JSON: None for off, none for on, else the atoms in their order.

    Raises KeyError for what is no atom, and ValueError where two would have the same name.
    """
    if text.lower() in ("on", "off"):
        return () if text.lower() == "on" else None
    atoms = tuple(atom.strip() for atom in text.split(","))
    if len({name_of(atom) for atom in atoms}) < len(atoms):
        raise ValueError(text)
    return atoms
