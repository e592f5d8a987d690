"""The app of the demo: one handler, which charges a donation over HTTP.

The demo copies this file to a directory of its own and starts `worker run --app payments:app`
there, as you would. PAYMENTS_URL says where the API is.
"""

from __future__ import annotations

import http.client
import json
import os
from typing import Any
from urllib.parse import urlsplit

from tenacity import stop_after_attempt, wait_exponential

from worker import App, Context, PermanentError, Retry, RetryPolicy, wait_spread

app = App()


class Unavailable(Exception):
    """The API could not do it now; it may have done it all the same."""


class Refused(PermanentError):
    """The API will never do it."""


PATIENTLY = RetryPolicy(
    wait=wait_spread(wait_exponential(multiplier=0.25, max=4)),
    stop=stop_after_attempt(12),
)


@app.handler("charge_donation", timeout=10, retry=PATIENTLY)
def charge_donation(donation: int, cents: int, context: Context) -> dict[str, str]:
    """A plain `def` runs in a thread and may block. What it returns is kept as the row's result.

    The connection may break after the API has booked the charge, and this process may be killed
    before the result is written. Either way the row runs again, under the same idempotency key,
    and the API answers with the charge that it has already made.
    """
    charge = {"donation": donation, "cents": cents}
    status, headers, answer = post("/charges", charge, context.idempotency_key)
    match status:
        case 200 | 201:
            return {"charge": answer["id"]}
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
