"""Several worker processes under one supervisor: `worker run --processes N`.

    supervisor.py   owns them: starts, restarts, stops, tells how they are
    process.py      one of them, as the supervisor sees it
    birth.py        how one comes to be: a fork, or a program of its own
    parent.py       the supervisor, as one of them sees it
    signals.py      the supervisor's signals, one after the other
    port.py         the supervisor's /healthz
    backoff.py      how long to wait before one that died is started again

A process is an ordinary worker; the supervisor has no connection, no event loop and no thread.
"""
