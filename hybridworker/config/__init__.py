"""The configuration: gunicorn's settings and our own variables."""
