"""
Budget: how many useless frames and resets a client may send on one connection: PING, SETTINGS, PRIORITY, empty DATA and
the like. :mod:`.framereader` counts them, in ``_spend``; here are the bounds.

Floods of control frames (CVE-2019-9512, 9513, 9515, 9518), rapid reset (CVE-2023-44487) and MadeYouReset
(CVE-2025-8671) are all of this kind. Pure but for the clock.
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import HTTP2Error
from .wire import ENHANCE_YOUR_CALM

#: Frames that carry nothing: so many at once, then so many a second.
FRAMES, FRAMES_RATE = 1000, 100

#: They are paid back by what is sent: so many for each message of an application, and one for so many bytes. HAProxy
#: updates both windows for each TCP segment that it reads.
PER_MESSAGE, BYTES_PER_FRAME = 3, 256

#: Resets by the client, or that it has provoked: so many at once, then so many a second.
FAULTS, FAULTS_RATE = 200, 20


class Budget:
    """
    One for each connection. The bounds are far above what a normal client needs, and every message and body that is
    sent to the client raises what is left of ``frames``.

    ``frames`` and ``faults`` are what is left. The reader lowers ``frames`` for each frame that carries nothing.
    ``delivered`` counts messages of applications that were sent in full; who sends counts them. ``clock`` gives
    seconds.
    """

    __slots__ = ("clock", "delivered", "faults", "faults_at", "frames", "frames_at", "sent")

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.frames, self.faults = FRAMES, FAULTS
        self.frames_at = self.faults_at = clock()
        self.delivered = 0
        self.sent = 0  #: bytes of bodies that had been sent when ``frames`` were given back

    def refill(self, sent: int) -> None:
        """
        ``frames`` is below 0: give back what time and use have earned.

        ``sent`` are all bytes of bodies that were sent so far. Raises :class:`~.errors.HTTP2Error` if that is too
        little.
        """
        now = self.clock()
        earned = self.delivered * PER_MESSAGE + (sent - self.sent) // BYTES_PER_FRAME
        self.frames += min(FRAMES, int((now - self.frames_at) * FRAMES_RATE)) + earned
        self.frames_at, self.sent, self.delivered = now, sent, 0
        if self.frames < 0:
            raise HTTP2Error(ENHANCE_YOUR_CALM, "too many frames that carry nothing")

    def blame(self, cost: int = 1) -> None:
        """The client has reset a stream, or done what it is reset for. Raises :class:`~.errors.HTTP2Error`."""
        self.faults -= cost
        if self.faults < 0:
            now = self.clock()
            self.faults += min(FAULTS, int((now - self.faults_at) * FAULTS_RATE))
            self.faults_at = now
            if self.faults < 0:
                raise HTTP2Error(ENHANCE_YOUR_CALM, "too many streams reset, or refused")
