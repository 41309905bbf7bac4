"""
gunicorn's configuration file, as ``make run`` uses it.

Run it:

    gunicorn -c examples/gunicorn.conf.py --chdir examples asgi_app:app

Everything here is gunicorn's own and is explained in its documentation; the comments say
what a setting means with this worker. What the command line says wins over this file.
"""

# The one line that matters. It serves ASGI and WSGI; which of the two is seen from the application.
worker_class = "hybridworker.Worker"

# Behind a proxy on the same machine a unix socket is faster: bind = "unix:/run/app/gunicorn.sock"
bind = "127.0.0.1:8000"

# One process a core is a good start. Each has its own event loop, its own lifespan and its own memory.
workers = 1

# WSGI: calls that run at once in each worker; with 1 they never overlap. ASGI does not use it.
threads = 8

# Seconds an idle connection stays open. Behind a proxy or load balancer make it longer than the idle
# timeout of that one (nginx 60 s, AWS ALB 60 s), or requests meet a connection that is just closing.
keepalive = 5

# Seconds a stopping worker has for the requests in flight and for lifespan shutdown.
graceful_timeout = 30

# A worker whose event loop is blocked for so many seconds is killed, with a report of what blocked it.
# For WSGI it says nothing about the length of a request: that runs in a thread, beside the loop.
timeout = 30

# Clients at once; further connections wait in the kernel's backlog.
worker_connections = 1000

# Whose X-Forwarded-Proto and X-Forwarded-For are believed. Unix sockets are always trusted.
forwarded_allow_ips = "127.0.0.1,::1"

# "-" is the terminal. The access log costs time; without it (None) nothing is computed for it.
accesslog = "-"
errorlog = "-"

# The worker's own few settings are environment variables, which can be set here too:
# raw_env = ["HYBRIDWORKER_HEADER_TIMEOUT=10"]
