"""
gunicorn's configuration for ``prometheus_app.py``, which says how to run it.

The library looks at PROMETHEUS_MULTIPROC_DIR when it is imported, so the folder is named here, before that.
"""

import os
import shutil
import tempfile

worker_class = "hybridworker.Worker"
bind = "127.0.0.1:8000"
workers = 2
threads = 4
raw_env = ["HYBRIDWORKER_METRICS_PATH=/workers", "HYBRIDWORKER_ACCESS_SKIP=/metrics"]
accesslog = "-"

#: A master that was upgraded by USR2, and its old one, share the folder, so it is found in the environment.
if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="prometheus-")


def child_exit(server, worker):
    """In the master: the gauges of a worker that has ended count no longer."""
    from prometheus_client import multiprocess

    multiprocess.mark_process_dead(worker.pid)


def on_exit(server):
    """The folder goes with the last master; a new one begins at zero, as every counter may."""
    if not server.reexec_pid and "GUNICORN_PID" not in os.environ:
        shutil.rmtree(os.environ["PROMETHEUS_MULTIPROC_DIR"], ignore_errors=True)
