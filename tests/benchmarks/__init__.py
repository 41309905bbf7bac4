"""
The benchmark that anybody can repeat: ``make bench``, or ``python -m tests.benchmarks run``.

One server at a time, with one worker unless the scenario says otherwise, pinned to one core, with the load on another.
What is measured is in ``scenarios.py``, what is measured against in ``servers.py``; ``measure.py`` brings the two
together, ``load.py``, ``clients.py`` and ``groups.py`` make the load, ``report.py`` does the arithmetic and the tables.

Absolute numbers belong to a machine and a day. The number to compare is the ratio: within one round all servers meet
the same machine, so the ratio is taken round by round and its median reported with its spread.
"""
