"""
The table of features: what users ask of a server, tried against hybridworker and its peers.

``python -m tests.compare run`` starts each server over loopback, with its own settings where it has some for what is
asked, does the thing with a real client, and stores what it saw; ``report`` makes the tables of it.

A row is a function of a group's module, with a title in the words of users and a docstring that says how it is tried.
Modules: ``registry`` (rows and answers), ``peers`` (how each server is told what), ``servers`` (starting one), ``apps``
(what they serve), ``load``, ``clients`` and ``http3`` (what asks), ``report``, and one for each group of rows.
"""
