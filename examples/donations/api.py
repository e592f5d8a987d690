"""The payments API of `worker demo`, as slow as the one of the scenario.

python -m examples.donations.api

PUT /errors   {"share": 0.1}: from now on so many of the requests fail
POST /charges, GET /ledger: see worker.demo.api
"""

from __future__ import annotations

import json

from examples.common.clock import Clock
from worker.demo.api import Faults, Ledger, Payments, Request
from worker.demo.loopback import answer

LATENCY = 3.0  # seconds of the scenario, for each charge


class Provider(Payments):
    """At first nothing fails."""

    def __init__(self, clock: Clock) -> None:
        seconds = clock.real(LATENCY)
        super().__init__(Ledger(), Faults(0), (seconds, seconds))
        self.RequestHandlerClass = Exchange


class Exchange(Request):
    def do_PUT(self) -> None:  # noqa: N802 (the base class calls it so)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.faults = Faults(body["share"])
        answer(self, 200, {})


if __name__ == "__main__":
    Provider(Clock.from_environment()).serve()
