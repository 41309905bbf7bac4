"""
The ASGI checklist: what ASGI 2.5 demands, as statements that any server can be held against.

``python -m tests.checklist SERVER`` starts a server over loopback, runs every statement
and prints a table; ``test_checklist.py`` runs them against hybridworker, where a failure
is a failure.

A statement is a function named after its identifier, whose docstring is the rule in one
sentence. Most come with an application of their own, a coroutine that ends in ``_app`` and
takes a :class:`~.case.Case`; it runs in the server's process and leaves notes that the
statement reads. Modules: ``case`` and ``app`` (inside the server), ``wire`` (the client),
``servers`` (starting one), ``registry`` (statements and verdicts), and one per chapter.
"""
