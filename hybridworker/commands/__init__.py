"""The commands of ``python -m hybridworker``: what looks at a worker, or at its configuration, from outside."""
