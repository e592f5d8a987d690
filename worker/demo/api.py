"""A payments API on the loopback: real HTTP, slow, and as unreliable as a real one.

    python -m worker.demo.api [--errors 0.1] [--forget-keys]

It prints its URL, and serves until its stdin is closed, so that it cannot outlive who started it.

POST /charges   {"donation": "7", "cents": 500}, with an Idempotency-Key header;
                and "card", if it is not one that pays
                201: charged; 200: this key was charged before, nothing was done;
                402: the card is declined, as often as it is tried;
                422: this key was charged before, with another body; 429, 503: try again
GET /ledger     every charge, and how many requests of which sort there were
"""

from __future__ import annotations

import argparse
import json
import random
import socket
import struct
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler
from typing import Any, Literal

from worker.demo.loopback import Loopback, answer

LATENCY = (0.020, 0.150)  # seconds, evenly spread
RETRY_AFTER = 1  # seconds, with a 429
DECK = 40
DECLINED = "4000000000000002"  # the card number that payment providers have for this test

Fault = Literal["503", "429", "reset before the charge", "reset after the charge"]
FAULTS: tuple[Fault, ...] = ("503", "429", "reset before the charge", "reset after the charge")

Charge = dict[str, Any]


class Ledger:
    """Every charge that was made. Threads may share it.

    keeps_keys: whether a key that was charged before is recognised. An API that does not is what
    idempotency keys protect from.
    """

    def __init__(self, *, keeps_keys: bool = True) -> None:
        self._keeps_keys = keeps_keys
        self._lock = threading.Lock()
        self._charges: list[Charge] = []
        self._by_key: dict[str, tuple[Charge, Charge]] = {}  # key -> (body, charge)
        self._counts: Counter[str] = Counter()

    def charge(self, key: str, body: Charge) -> tuple[int, Charge]:
        """Books a charge, once a key. The status and the answer."""
        with self._lock:
            first = self._by_key.get(key) if self._keeps_keys else None
            if first is None:
                made = {"id": f"ch_{len(self._charges) + 1:06}", "key": key, **body}
                self._charges.append(made)
                self._by_key[key] = (body, made)
                return 201, made
            if first[0] != body:
                self._counts["conflicts"] += 1
                return 422, {"error": "this idempotency key was used for another charge"}
            self._counts["replays"] += 1
            return 200, first[1]

    def count(self, what: str) -> None:
        with self._lock:
            self._counts[what] += 1

    def told(self) -> dict[str, Any]:
        """requests; faults by sort; declined: of a card that does not pay; replays: a known key
        with the same body; conflicts: a known key with another; charges."""
        with self._lock:
            return {
                "requests": self._counts["requests"],
                "faults": {fault: self._counts[fault] for fault in FAULTS},
                "declined": self._counts["declined"],
                "replays": self._counts["replays"],
                "conflicts": self._counts["conflicts"],
                "charges": list(self._charges),
            }


class Faults:
    """Which requests go wrong: an even share of each sort in every forty, in random order."""

    def __init__(self, share: float) -> None:
        wrong = [FAULTS[i % len(FAULTS)] for i in range(round(DECK * share))]
        self._deck: list[Fault | None] = [*wrong, *[None] * (DECK - len(wrong))]
        self._lock = threading.Lock()
        self._left: list[Fault | None] = []

    def next(self) -> Fault | None:
        with self._lock:
            if not self._left:
                self._left = random.sample(self._deck, len(self._deck))
            return self._left.pop()


class Payments(Loopback):
    """The server. latency: seconds, evenly spread between."""

    def __init__(
        self, ledger: Ledger, faults: Faults, latency: tuple[float, float] = LATENCY
    ) -> None:
        super().__init__(Request)
        self.ledger = ledger
        self.faults = faults
        self.latency = latency


class Request(BaseHTTPRequestHandler):
    server: Payments

    def do_GET(self) -> None:
        if self.path == "/ledger":
            answer(self, 200, self.server.ledger.told())
        else:
            answer(self, 404, {"error": "there is no such thing"})

    def do_POST(self) -> None:
        ledger = self.server.ledger
        key = self.headers.get("Idempotency-Key")
        length = int(self.headers.get("Content-Length", 0))
        text = self.rfile.read(length)
        if len(text) < length:
            return  # its sender was killed on the way
        ledger.count("requests")
        body = json.loads(text)
        if self.path != "/charges" or not key:
            answer(self, 400, {"error": "POST /charges with an Idempotency-Key"})
            return
        time.sleep(random.uniform(*self.server.latency))
        fault = self.server.faults.next()
        if fault is not None:
            ledger.count(fault)
        match fault:
            case "503":
                answer(self, 503, {"error": "try again"})
            case "429":
                answer(self, 429, {"error": "slow down"}, {"Retry-After": str(RETRY_AFTER)})
            case "reset before the charge":
                self._reset()
            case "reset after the charge":
                self._charge(key, body)
                self._reset()
            case None:
                answer(self, *self._charge(key, body))

    def _charge(self, key: str, body: Charge) -> tuple[int, Charge]:
        if body.get("card") == DECLINED:
            self.server.ledger.count("declined")
            return 402, {"error": "the card is declined"}
        return self.server.ledger.charge(key, body)

    def _reset(self) -> None:
        """Closes the connection so that the client sees a reset: no lingering, RST at once."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the ledger counts."""


def main() -> None:
    parser = argparse.ArgumentParser(description="A payments API to practise on.")
    parser.add_argument("--errors", type=float, default=0.1, help="share of requests that fail")
    parser.add_argument("--forget-keys", action="store_true", help="charge anew each time")
    options = parser.parse_args()
    Payments(Ledger(keeps_keys=not options.forget_keys), Faults(options.errors)).serve()


if __name__ == "__main__":
    main()
