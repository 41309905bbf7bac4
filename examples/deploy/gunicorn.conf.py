"""
gunicorn's configuration for all deployments of this folder.

The numbers belong together; change one and look at the others:

    nginx.conf, haproxy.cfg    keep a connection for 60 s      less than `keepalive` here
    kubernetes.yaml            preStop 5 s + graceful 40 s     less than its 60 s of grace
    app.service                TimeoutStopSec 50 s             more than `graceful_timeout` here
"""

import os

worker_class = "hybridworker.Worker"

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
    # After TERM go on accepting for so long: two probes of the balancer (every 2 s to 5 s here) see the 503 and send
    # nobody any more, before a connection could be refused.
    "HYBRIDWORKER_DRAIN_DELAY": "10",
}
raw_env = [f"{name}={os.environ.get(name, value)}" for name, value in own.items()]
