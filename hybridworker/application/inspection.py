"""
Inspection: what gunicorn loaded, taken apart into applications whose interfaces are known.

:func:`inspect` gives one :class:`Served` for a plain application, and one for each part of a Hybrid. Worker boot only;
no line of an application runs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from ..config.settings import Settings
from ..errors import ConfigurationError
from .detect import SAY_IN_CODE, SET_VARIABLE, Decision, Interface, detect, undeclared
from .directory import Part
from .hybrid import Hybrid, hybrid_within

VARIABLE = "HYBRIDWORKER_WEBSOCKET"


class Served(NamedTuple):
    """One application, and what was found out about it."""

    part: Part | None  #: where it stands in a Hybrid
    app: Any
    decision: Decision

    @property
    def is_wsgi(self) -> bool:
        """Whether its calls run in threads."""
        return self.decision.interface is Interface.WSGI


def pair(first: Any, second: Any, uri: str) -> Hybrid:
    """The Hybrid that HYBRIDWORKER_WEBSOCKET means; ``uri`` is where ``second`` was found."""
    if isinstance(first, Hybrid):
        raise ConfigurationError(
            f"HYBRIDWORKER_WEBSOCKET={uri} beside a Hybrid: unset it, and name that application in the Hybrid"
        )
    if isinstance(second, Hybrid):
        raise ConfigurationError(
            f"HYBRIDWORKER_WEBSOCKET={uri} is a Hybrid: name that as the application, and unset the variable"
        )
    return Hybrid(first, websocket=second)


def inspect(app: Any, settings: Settings, uri: str | None = None) -> list[Served]:
    """
    Find out what ``app``, which was found at ``uri``, consists of, in the order named.

    Raises :class:`~.errors.ConfigurationError` with a line that names the part.
    """
    if not isinstance(app, Hybrid):
        return [Served(None, undeclared(app), _of_plain(app, settings, uri))]
    paired = settings.websocket
    if settings.interface != "auto" and not paired:
        raise ConfigurationError(
            f"HYBRIDWORKER_INTERFACE={settings.interface} says nothing about the parts of a Hybrid: unset it, and"
            " say hybridworker.as_asgi(part) or hybridworker.as_wsgi(part) in the code"
        )
    served = []
    for part in app.parts:
        if not paired:
            decision = _of_part(part.key, part.app)
        elif part.name == "default":
            decision = detect(part.app, settings.interface, uri)
        else:
            decision = _of_part(f"HYBRIDWORKER_WEBSOCKET={paired}", part.app, paired)
            if decision.interface is Interface.WSGI:
                raise ConfigurationError(
                    f"HYBRIDWORKER_WEBSOCKET={paired} is a WSGI application ({decision.reason}):"
                    " WebSockets need an ASGI one"
                )
        served.append(Served(part, undeclared(part.app), decision))
    return served


def _of_part(key: str, app: Any, uri: str | None = None) -> Decision:
    try:
        return detect(app, uri=uri, hint=SAY_IN_CODE)
    except ConfigurationError as exc:
        raise ConfigurationError(f"{key}: {exc}") from None


def _of_plain(app: Any, settings: Settings, uri: str | None) -> Decision:
    """The decision about the one application. A Hybrid inside of it is served as its middleware serves it."""
    decision = detect(app, settings.interface, uri, SET_VARIABLE)
    if hybrid_within(undeclared(app)) is None:
        return decision
    if decision.interface is Interface.WSGI:
        raise ConfigurationError("a WSGI middleware cannot call a Hybrid: wrap the parts of the Hybrid instead")
    doubt = "a middleware wraps a Hybrid, so all of it is served as plain ASGI: wrap the parts of the Hybrid instead"
    return replace(decision, doubt=f"{decision.doubt}; {doubt}" if decision.doubt else doubt)
