"""
A stand-in for the monkey patching of gevent: threads that never run, because nobody waits by its means.

It is what gevent does to ``_thread`` and ``threading`` as far as this worker could notice.
"""

import _thread
import threading

Thread = threading.Thread
real = threading.get_ident


def get_ident():
    return real() + 1


def start_new_thread(function, args=(), kwargs=None):
    return get_ident()


def patch_all():
    _thread.get_ident = threading.get_ident = get_ident
    _thread.start_new_thread = start_new_thread
    for name in ("_start_new_thread", "_start_joinable_thread"):
        if hasattr(threading, name):
            setattr(threading, name, start_new_thread)
    threading.main_thread()._ident = get_ident()
