"""The app: one handler, which charges one donation.

    worker run --app examples.donations.app:app --concurrency 25

PAYMENTS_URL says where the API is.
"""

from __future__ import annotations

from dataclasses import dataclass
from http.client import HTTPException
from uuid import UUID

from tenacity import retry_if_exception_type, stop_after_attempt, wait_exponential

from examples.common.clock import Clock
from worker import App, Context, PermanentError, Redrive, RetryPolicy
from worker.demo.app import post

DAY = 86_400.0
MONTH = 30 * DAY

clock = Clock.from_environment()
app = App()


@dataclass
class Donation:
    """The columns that the handler needs; only these are read."""

    id: UUID
    cents: int
    card: str


class RateLimited(Exception):
    """The API asks for a pause of a second; the policy's shortest one is longer."""


class Unavailable(Exception):
    """The API could not do it now; it may have done it all the same."""


class Declined(PermanentError):
    """The card does not pay: the row is dead at once. It is run again a day later, three days long,
    or when somebody says so; by then the donor may have given another card."""


class Refused(PermanentError):
    """The API says that the request itself is wrong."""


# After 2, 4 and 8 seconds, then every 8: ten times in a hundred the API fails, so that with three
# tries one donation in ten thousand would be given up for nothing.
BY_CLASS = RetryPolicy(
    wait=wait_exponential(multiplier=clock.real(2), max=clock.real(8)),
    stop=stop_after_attempt(8),
    retry_if=retry_if_exception_type((RateLimited, Unavailable, OSError, HTTPException)),
)


@app.rows(
    "donations",
    table="example_donations.donations",
    due="next_charge_at",
    where="status = 'active'",
    every=clock.real(MONTH),
    timeout=clock.patience(30),
    retry=BY_CLASS,
    redrive=Redrive(after=clock.real(DAY), times=3),
)
def charge(donation: Donation, context: Context) -> None:
    """A plain `def` runs in a thread and may block. When it returns, the donation is due again in a
    month.

    The idempotency key holds nothing random and nothing of the attempt: it is made of the row and
    its due time. So it is the same after a lost answer, in another worker, after a crash; and
    another one next month.
    """
    body = {"donation": str(donation.id), "cents": donation.cents, "card": donation.card}
    status, _, answer = post("/charges", body, context.idempotency_key)
    match status:
        case 200 | 201:
            return
        case 402:
            raise Declined(answer["error"])
        case 429:
            raise RateLimited(answer["error"])
        case 503:
            raise Unavailable(answer["error"])
        case _:
            raise Refused(f"the API answers {status}: {answer.get('error')}")
