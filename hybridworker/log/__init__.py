"""The access log and the request hooks, as gunicorn has them."""
