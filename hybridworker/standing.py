"""
Standing: what the application may ask of the worker that it runs in.

The public functions :func:`is_leaving`, :func:`leading` and :func:`slot`, which the package
exports. They may be called in tasks, threads and anywhere else, as often as one likes: each reads a
value that the worker has written. Nothing is imported here, so they cost an application that runs
elsewhere nothing.

Invariant: what stands here is true of one process. A child that the application forks has a copy of it
that means nothing there, so each answer looks at the pid first.
"""

from __future__ import annotations

import os


class Standing:
    """What is known of this process; a worker changes it, and :data:`here` is the only one."""

    __slots__ = ("is_leaving", "is_of_gunicorn", "leads", "master", "pid", "slot")

    def __init__(self) -> None:
        self.is_of_gunicorn = False  #: a master with this worker class, or what it has forked
        self.pid = self.master = 0  #: of the worker, and of the process that has forked it
        self.slot: int | None = None
        self.leads = False
        self.is_leaving = False

    def enter(self, slot: int | None) -> None:
        """This process is a worker, with that row of the scoreboard."""
        self.pid, self.master, self.slot = os.getpid(), os.getppid(), slot
        self.leads = self.is_leaving = False


here = Standing()


def is_leaving() -> bool:
    """
    Whether this worker is leaving, and no longer takes connections.

    True from the beginning of the drain to the end of the process; False outside of a worker. For responses
    and jobs without an end of their own, which had better come to one.
    """
    return here.is_leaving and here.pid == os.getpid()


def leading() -> bool:
    """
    Whether this is the one worker of its gunicorn that does what must be done once.

    To be asked for each job, and not once at startup: another worker leads when this one leaves. False
    until the worker serves, at import for instance, and in a child that the application forks. True outside of
    gunicorn, where nobody can know better: in tests, under other servers. One machine only.
    """
    if here.pid == os.getpid():
        # A master that was killed amid an upgrade leaves the lead to the other one, before this worker's loop sees it.
        return here.leads and here.master == os.getppid()
    return not here.is_of_gunicorn


def slot() -> int | None:
    """
    A small number that no other living worker of this gunicorn has, from 0 on; None outside of a worker.

    During a reload it may be up to twice the number of workers. The next worker takes the number of one that has
    ended, so names made of it (of files, of metrics) stay few.
    """
    return here.slot if here.pid == os.getpid() else None
