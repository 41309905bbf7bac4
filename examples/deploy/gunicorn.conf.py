"""
gunicorn's configuration for all deployments of this folder.

The numbers belong together; change one and look at the others:

    nginx.conf, haproxy.cfg    keep a connection for 60 s           less than `keepalive` here
    kubernetes.yaml            preStop 5 s + graceful 40 s          less than its 60 s of grace
    app.service                TimeoutStopSec 50 s                  more than `graceful_timeout` here
    limits of memory           MAX_RSS times the workers            less than the limit, by half if HUP is used

Before a reload, with the user and the environment of the service:

    python -m hybridworker check -c gunicorn.conf.py module:app

It reads this file, the variables and the application, as a boot does, and ends with 0 if they are good. (gunicorn's
own --check-config does not look at variables.) It does not prove that lifespan startup succeeds, that the port is
free, that the database answers, or that a hook of this file works: none of them is run. Code that cannot boot harms
nobody after HUP, since the old workers go on; an error in this file ends gunicorn. So check it.
"""

import os

worker_class = "hybridworker.Worker"

# How many workers: WEB_CONCURRENCY, which gunicorn reads by itself; one for each core is a good start. With a single
# one nobody accepts while it replaces itself.

# WSGI calls that run at once in each worker, those of a Hybrid's WSGI parts together; ASGI needs none.
threads = 8

# Seconds an idle connection stays open: longer than the balancer keeps it, so that it is always the balancer that
# closes. With gunicorn's default of 2 the balancer now and then sends a request into a connection that is just
# closing, and its user sees a 502.
keepalive = 75

# All phases of leaving count inside of it: at most half of it the drain delay, then the requests in flight, and
# of the rest up to 5 s for lifespan shutdown. What is not finished then is cut.
graceful_timeout = 40

# The heartbeat is a file; on an overlay file system or a slow disk the master may take a worker for dead.
worker_tmp_dir = "/dev/shm"

# gunicorn's control socket wants a folder to write to, which a container or a unit need not have.
control_socket_disable = True

# The worker's own settings, where the environment does not say otherwise. (On the command line --env would replace
# them all.)
own = {
    # For the balancers: answered in the event loop, before the application; 503 as soon as the worker must leave and
    # no sibling stays. Not in the access log.
    "HYBRIDWORKER_HEALTH_PATH": "/health",
    # X-Forwarded-For of a trusted proxy (forwarded_allow_ips, and every unix socket) names the client, for WSGI too:
    # without it REMOTE_ADDR is the proxy's address, and empty behind a unix socket.
    "HYBRIDWORKER_FORWARDED_CLIENT": "on",
    # After TERM go on accepting for so long. It is for balancers that ask for /health, and for nobody else: nginx and
    # systemd gain nothing, and each stop takes so much longer. haproxy.cfg and kubernetes.yaml set it to 10.
    "HYBRIDWORKER_DRAIN_DELAY": "0",
    # Two applications as one, without code: WebSockets go to this one. (A Hybrid of your own needs nothing here.)
    # "HYBRIDWORKER_WEBSOCKET": "project.asgi:application",
    # MiB: a worker that has grown to this size is replaced, one at a time, and nothing is lost. Well above what the
    # application needs at rest. Without it the kernel kills at the limit of the container or unit, requests and all.
    # "HYBRIDWORKER_MAX_RSS": "200",
    # Seconds that open streams have when the worker leaves. Off: one stream holds a deploy up for graceful_timeout.
    # "HYBRIDWORKER_STREAM_DRAIN": "5",
    # Overload: what cannot be answered in time is a 503 (never begun) or a 504, instead of a queue without an end.
    # "HYBRIDWORKER_REQUEST_TIMEOUT": "30",
    # "HYBRIDWORKER_QUEUE_TIMEOUT": "5",
    # "HYBRIDWORKER_REQUESTS_MAX": "200",
    # "HYBRIDWORKER_LIMIT_REQUEST_BODY": "20971520",
}
raw_env = [f"{name}={os.environ.get(name, value)}" for name, value in own.items()]
