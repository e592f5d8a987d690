"""The app of the demo: one handler, which charges the donations that are due, over HTTP.

The demo copies this file to a directory of its own and starts `worker run --app payments:app`
there, as you would. PAYMENTS_URL says where the API is, DONATIONS in which schema the table is.
"""

from __future__ import annotations

import http.client
import json
import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID

from tenacity import stop_after_attempt, wait_exponential

from worker import App, Context, PermanentError, Retry, RetryPolicy, wait_spread

app = App()
schema = os.environ.get("DONATIONS", "public")


@dataclass
class Donation:
    """The columns that the handler needs; only these are read."""

    id: UUID
    cents: int


class Unavailable(Exception):
    """The API could not do it now; it may have done it all the same."""


class Refused(PermanentError):
    """The API will never do it."""


PATIENTLY = RetryPolicy(
    wait=wait_spread(wait_exponential(multiplier=0.25, max=4)),
    stop=stop_after_attempt(12),
)


@app.rows(
    schema,  # what the source is called
    table=f"{schema}.donations",
    key="id",
    due="next_charge_at",
    where="status = 'active'",
    every=timedelta(days=30),
    timeout=10,
    retry=PATIENTLY,
)
def charge(donation: Donation, context: Context) -> None:
    """A plain `def` runs in a thread and may block. When it returns, the donation is due again in
    thirty days.

    The connection may break after the API has booked the charge, and this process may be killed
    before the row is settled. Either way the row runs again, under the same idempotency key, and
    the API answers with the charge that it has already made. Next month the key is another.
    """
    body = {"donation": str(donation.id), "cents": donation.cents}
    status, headers, answer = post("/charges", body, context.idempotency_key)
    match status:
        case 200 | 201:
            return
        case 429:
            raise Retry("the API asks for a pause", after=float(headers.get("Retry-After", 1)))
        case 503:
            raise Unavailable(f"the API answers {status}")
        case _:
            raise Refused(f"the API answers {status}: {answer.get('error')}")


def post(path: str, body: dict[str, Any], key: str) -> tuple[int, Any, dict[str, Any]]:
    """(status, headers, body) of the answer; OSError or HTTPException when there is none."""
    address = urlsplit(os.environ["PAYMENTS_URL"])
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=5)
    try:
        headers = {"Content-Type": "application/json", "Idempotency-Key": key}
        connection.request("POST", path, json.dumps(body), headers)
        answer = connection.getresponse()
        return answer.status, answer.headers, json.loads(answer.read())
    finally:
        connection.close()
