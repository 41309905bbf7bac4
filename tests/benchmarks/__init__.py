"""
The benchmark that anybody can repeat: ``make bench``, or ``python -m tests.benchmarks run``.

One server at a time, with one worker unless the scenario says otherwise, pinned to one core, with the load on another.
For a throughput all servers of a scenario run at once and take turns of 50 ms (``turns.py``); what is a latency, a
start or memory is measured of one after the other.
The real applications with two workers have two cores: on a machine of two the load, which is small there, shares the
second one, on others it has a third.

What is measured is in ``scenarios.py``, what is measured against in ``servers.py``, an earlier revision of this worker
included (``revision.py``). ``run.py`` goes through the rounds and ``progress.py`` knows how long they take;
``measure.py`` makes one measurement, ``turns.py`` those of servers that take turns; ``load.py``, ``clients.py`` and
``groups.py`` make the load. ``store.py`` keeps the results and knows which are old, ``figures.py`` does the arithmetic,
``report.py`` the tables.

Absolute numbers belong to a machine and a day. The number to compare is the ratio: within one round all servers meet
the same machine, so the ratio is taken round by round and its median reported with its spread. Two starts of the same
server differ by 1 to 3 percent: several rounds tell more than one long one.
"""
