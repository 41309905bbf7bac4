"""
Patches: whether a library has replaced the threads or queues of the standard library.

Any thread.
"""

from __future__ import annotations

import queue
import threading


def patched(*modules: str) -> str | None:
    """
    What speaks against this process where a library has patched ``threading`` or ``queue``.

    Threads of gevent and eventlet are greenlets, which run only when another one waits by the
    library's own means. An event loop does not: no thread would ever run. Of a real
    thread that waits at one of their queues nobody knows: no executor would get its jobs.
    """
    parts = {"threading": threading.get_ident, "queue": queue.SimpleQueue}
    for module in modules:
        library = parts[module].__module__.partition(".")[0]
        if library.removeprefix("_") not in ("thread", "queue"):
            return (
                f"{library} has patched {module}, and this worker runs real threads: take {library}'s monkey patching"
                " out of the configuration and the application, or use its own worker"
            )
    return None
