"""
Leadership: which one worker of a group does what must be done once.

The worker that has a record lock (POSIX, ``fcntl.lockf``) on a file that the master made. Such
a lock belongs to a process: the kernel gives it up when that ends, however it ends, and a child
does not inherit it. (``flock`` and open file description locks would be those of all workers, since
they all have the same open file.) Event loop side, but for :meth:`Leadership.of_master`.

Invariant: a worker says that it leads only while it has the lock, and says that it does not before it
gives the lock up. Invariant: nothing here closes the file, because that would give up the lock.
"""

from __future__ import annotations

import errno
import fcntl
import os
import tempfile
from collections.abc import Callable
from typing import ClassVar

from ..standing import Standing

#: What lockf() says when another process has the lock (POSIX allows both).
_HELD = frozenset({errno.EACCES, errno.EAGAIN})


class Leadership:
    """The file of one master; what a worker knows of it stands in ``here``."""

    _of_master: ClassVar[tuple[int, Leadership | None]] = (0, None)

    def __init__(self, folder: str | None = None) -> None:
        """Make the file, without a name. Raises OSError."""
        if hasattr(os, "memfd_create"):  # Linux: in memory, so no network is asked
            self.fd = os.memfd_create("hybridworker-leader")
        else:
            self.fd, path = tempfile.mkstemp(prefix="hybridworker-", dir=folder)
            os.unlink(path)
        self.inode = os.fstat(self.fd).st_ino

    @classmethod
    def of_master(cls, folder: str | None, warn: Callable[..., object]) -> Leadership | None:
        """Return that of this process; the first call makes it. Where that fails: None, and one warning."""
        pid, leadership = cls._of_master
        if pid != os.getpid():
            try:
                leadership = cls(folder)
            except OSError as exc:
                leadership = None
                warn("There is no file to lock (%s): no worker leads", exc)
            Leadership._of_master = os.getpid(), leadership
        return leadership

    def seek(self, here: Standing) -> None:
        """Lead if nobody else does; for each tick. A leader finds out whether it still is one."""
        here.leads = self._lock()

    def give_up(self, here: Standing) -> None:
        """Let a sibling lead."""
        if here.leads:
            here.leads = False
            if self._is_there():
                fcntl.lockf(self.fd, fcntl.LOCK_UN)

    def _lock(self) -> bool:
        if not self._is_there():
            return False
        try:
            fcntl.lockf(self.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as exc:
            if exc.errno not in _HELD:
                raise
            return False
        return True

    def _is_there(self) -> bool:
        """Whether the descriptor is still that of the file: some libraries close all that they did not open."""
        try:
            return os.fstat(self.fd).st_ino == self.inode
        except OSError:
            return False
