"""Fault runs: real worker processes are killed, frozen, stopped and cut off under load.

    python -m tests.chaos            every run in its full form, about half an hour
    python -m tests.chaos kills      one of them
    python -m tests.chaos --short    the forms that the ordinary tests run

What a run did is told by two witnesses that do not trust the worker: the handlers' ledger, a file
outside the database, and a trigger that records every change of every row and exists only here.
The checker reads both and proves the invariants.
"""
