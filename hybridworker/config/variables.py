"""
The ``HYBRIDWORKER_*`` variables of the environment: names, values, defaults.

:data:`VARIABLES` is their documentation, and README.rst is tested against it. To add one, add a row, and a field of the
same name in :class:`~.settings.Settings`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ..errors import ConfigurationError
from .atoms import chosen

PREFIX = "HYBRIDWORKER_"

#: What Kubernetes puts into the environment of every pod next to a service called ``hybridworker`` or
#: ``hybridworker-something``. No variable of ours may look like this.
SERVICE_LINK = re.compile(
    rf"{PREFIX}(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)", re.ASCII
)


class Kind(NamedTuple):
    """What a variable may hold, in words, and a function that makes the value. That raises ValueError or KeyError."""

    allowed: str
    parse: Callable[[str], object]


def choice(*words: str) -> Kind:
    """One of ``words``."""
    table = {word: word for word in words}
    return Kind(f"{', '.join(words[:-1])} or {words[-1]}", lambda text: table[text.lower()])


def seconds(off: float) -> Kind:
    """Seconds, with an optional fraction; 0 becomes ``off``."""
    allowed = "a number of seconds such as 15 or 0.5, or 0 for off"
    return Kind(allowed, lambda text: float(digits(text, fraction=True)) or off)


def drain_seconds(text: str) -> float | None:
    """Seconds, of which 0 are as good as any; infinity for ``off``, None where nothing is said."""
    if not text:
        return None
    return math.inf if text.lower() == "off" else float(digits(text, fraction=True))


def digits(text: str, *, fraction: bool = False) -> str:
    """Return ``text`` if it is plain: no sign, exponent, underscore or name, all of which ``float`` takes."""
    if not re.fullmatch(r"\d{1,12}(\.\d{1,12})?" if fraction else r"\d{1,12}", text, re.ASCII):
        raise ValueError(text)
    return text


def path(text: str) -> str:
    """Return ``text`` if it is empty or the path of a URL, without query and percent-encoding."""
    if text and not re.fullmatch(r"/[!-$&->@-~]*", text):
        raise ValueError(text)
    return text


def module_variable(text: str) -> str:
    """Return ``text`` if it is empty or names a module, and perhaps a variable or a call in it."""
    if text and not re.fullmatch(r"[^\s:()]+(:\w+(\(.*\))?)?", text):
        raise ValueError(text)
    return text


def paths(text: str) -> tuple[str, ...]:
    """Decoded paths, and prefixes with a ``*`` at their end, separated by commas."""
    found = tuple(item.strip() for item in text.split(",")) if text else ()
    if not all(item.startswith("/") and item.isprintable() and "*" not in item[:-1] for item in found):
        raise ValueError(text)
    return found


#: Fields that frame a message, belong to one connection, or mean something else to both sides.
TAKEN = frozenset(
    "accept authorization connection content-encoding content-length content-type cookie date expect forwarded host"
    " keep-alive location proxy-authorization proxy-connection referer server set-cookie te trailer transfer-encoding"
    " upgrade user-agent www-authenticate x-forwarded-for x-forwarded-proto".split()
)


def field(text: str) -> bytes:
    """The name of a field in lower case, or nothing. One that means something to a server cannot hold an id."""
    name = text.lower()
    if name and (not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,63}", name) or name in TAKEN or name.startswith("sec-")):
        raise ValueError(text)
    return name.encode("ascii")


SWITCH = Kind("on or off", lambda text: {"on": True, "off": False}[text.lower()])
PATH = Kind("a path such as /health, or nothing for off", path)
DRAIN = Kind("a number of seconds such as 15 or 0.5, 0 for at once, or off", drain_seconds)
FIELD = Kind("the name of a field such as x-request-id, or traceparent, or nothing for off", field)
PATHS = Kind("decoded paths such as /healthz, or prefixes that end with an asterisk, separated by commas", paths)
ATOMS = Kind("on, off or atoms of gunicorn's such as h,r,s,D,{x-request-id}i, each name once", chosen)
MEBIBYTES = Kind("a whole number of MiB, or 0 for off", lambda text: int(digits(text)))
#: What may be counted: requests, bytes. The value of "off" is no number of them.
NUMBER = Kind("a whole number, or 0 for off", lambda text: int(digits(text)) or math.inf)
APPLICATION = Kind("an application such as project.asgi:application, or nothing for off", module_variable)


class Variable(NamedTuple):
    """One ``HYBRIDWORKER_*`` variable. Its value is the field of its name in :class:`~.settings.Settings`."""

    kind: Kind
    default: str
    unit: str
    remark: str


VARIABLES: Mapping[str, Variable] = {
    PREFIX + "INTERFACE": Variable(
        choice("auto", "asgi", "asgi2", "wsgi"),
        "auto",
        "",
        "what the application is, where its signature does not tell",
    ),
    PREFIX + "WEBSOCKET": Variable(
        APPLICATION, "", "", "a second application, ASGI, that gets every WebSocket: the first keeps all else"
    ),
    PREFIX + "FORWARDED_CLIENT": Variable(
        choice("auto", "on", "off"),
        "auto",
        "",
        "whether X-Forwarded-For of a trusted proxy names the client; auto: for ASGI yes, for WSGI no",
    ),
    PREFIX + "LEND_THREADS": Variable(
        choice("auto", "on", "off"),
        "auto",
        "",
        "whether synchronous code under ASGI runs in threads that are kept; auto: where Django's handler serves",
    ),
    PREFIX + "HEADER_TIMEOUT": Variable(
        seconds(off=math.inf), "15", "s", "a request head must be complete this long after its first byte"
    ),
    PREFIX + "WRITE_TIMEOUT": Variable(
        seconds(off=math.inf), "60", "s", "a client that takes no byte of a response for this long is cut off"
    ),
    PREFIX + "RESPONSE_SPOOL": Variable(
        MEBIBYTES, "64", "MiB", "of a WSGI response that its client does not read, so much waits on disk, in TMPDIR"
    ),
    PREFIX + "WS_COMPRESSION": Variable(SWITCH, "on", "", "permessage-deflate, for clients that offer it"),
    PREFIX + "WS_PING_INTERVAL": Variable(
        seconds(off=math.inf), "20", "s", "between two pings to a WebSocket client; one left unanswered closes it"
    ),
    PREFIX + "SLOW_LOOP": Variable(
        seconds(off=0.0), "1", "s", "a loop that stands still for this long is reported, with the stack that held it"
    ),
    PREFIX + "HEALTH_PATH": Variable(
        PATH, "", "", "answered 200 before the application, 503 when the worker leaves or can take no more"
    ),
    PREFIX + "METRICS_PATH": Variable(
        PATH, "", "", "answered before the application with Prometheus text for all workers; make it no public path"
    ),
    PREFIX + "REQUEST_ID": Variable(
        FIELD, "", "", "field with the id of a request: taken from a trusted proxy or made, and sent with the response"
    ),
    PREFIX + "ACCESS_SKIP": Variable(
        PATHS, "", "", "requests that are not in the access log as long as their status is below 400"
    ),
    PREFIX + "ACCESS_JSON": Variable(
        ATOMS, "off", "", "each line of the access log is a JSON object, whatever access_log_format says"
    ),
    PREFIX + "DRAIN_DELAY": Variable(
        seconds(off=0.0),
        "0",
        "s",
        "go on accepting this long after SIGTERM, so that load balancers notice; not if a younger worker accepts",
    ),
    PREFIX + "STREAM_DRAIN": Variable(
        DRAIN,
        "",
        "",
        "streams are asked to end so long after the drain began, with 0 at once; without a value 0 with --reload",
    ),
    PREFIX + "MAX_RSS": Variable(MEBIBYTES, "0", "MiB", "a worker that has grown to this size drains and is replaced"),
    PREFIX + "MAX_AGE": Variable(
        seconds(off=math.inf), "0", "s", "a worker that has served for so long drains and is replaced, or 10 % later"
    ),
    PREFIX + "REQUEST_TIMEOUT": Variable(
        seconds(off=math.inf), "0", "s", "504 where the response has not begun this long after the whole request came"
    ),
    PREFIX + "QUEUE_TIMEOUT": Variable(
        seconds(off=math.inf), "0", "s", "503 for a request that has waited this long for its turn, and never runs"
    ),
    PREFIX + "REQUESTS_MAX": Variable(
        NUMBER, "0", "", "503 for requests beyond so many in flight or queued in one worker; WebSockets do not count"
    ),
    PREFIX + "LIMIT_REQUEST_BODY": Variable(NUMBER, "0", "bytes", "413 for a request whose body is longer"),
    PREFIX + "SLOW_REQUEST": Variable(
        seconds(off=math.inf), "0", "s", "a request that has not begun to answer by then is reported, with its stack"
    ),
}


def read_variables(environ: Mapping[str, str]) -> dict[str, Any]:
    """Field name -> value of every variable of ours. An empty one counts as not set, as container tools write it."""
    for name in sorted(environ):
        if name.upper().startswith(PREFIX) and name not in VARIABLES and not SERVICE_LINK.fullmatch(name):
            raise ConfigurationError(f"{name} is not a variable of hybridworker; {suggestion(name)}")
    values = {}
    for name, variable in VARIABLES.items():
        text = environ.get(name, "").strip() or variable.default
        try:
            values[name.removeprefix(PREFIX).lower()] = variable.kind.parse(text)
        except (KeyError, ValueError):
            raise ConfigurationError(f"{name}={environ[name]!r} must be {variable.kind.allowed}") from None
    return values


def near_misses(environ: Mapping[str, str]) -> list[str]:
    """Warnings for the names in ``environ`` that look like variables of ours and have another prefix."""
    joined = {name.replace("_", ""): name for name in VARIABLES}
    found = []
    for name in sorted(environ):
        words = name.upper().split("_")
        meant = joined.get("".join(words))
        for at in range(1, len(words)):
            prefix, rest = "".join(words[:at]), "_".join(words[at:])
            if PREFIX + rest in VARIABLES and _resembles(prefix, PREFIX[:-1]):
                meant = PREFIX + rest
        if meant and not name.upper().startswith(PREFIX):
            found.append(f"{name} is not a variable of hybridworker; did you mean {meant}?")
    return found


def _resembles(one: str, other: str) -> bool:
    import difflib  # for mistakes only

    return difflib.SequenceMatcher(None, one, other).ratio() >= 0.85


def suggestion(name: str) -> str:
    """Name the nearest variable, or all of them. The common prefix is not compared: with it all would be near."""
    import difflib  # for mistakes only

    known = [variable.removeprefix(PREFIX) for variable in VARIABLES]
    nearest = difflib.get_close_matches(name.upper().removeprefix(PREFIX), known, n=1, cutoff=0.5)
    if nearest:
        return f"did you mean {PREFIX}{nearest[0]}?"
    return f"there are {', '.join(VARIABLES)}"
