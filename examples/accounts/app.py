"""The app: one handler, which refreshes one account.

    worker run --app examples.accounts.app:app --concurrency 10

There is no loop over accounts, no batch and no pause. A row is due when its `refresh_due_at` has
passed; as soon as one of the worker's slots is free the next due row starts in it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

import psycopg
import tenacity

from examples.accounts.totals import Totals
from examples.common.clock import Clock
from examples.common.http import call
from worker import App, Context, Lazy, PermanentError, RetryPolicy, Snooze

clock = Clock.from_environment()
app = App()
totals = Totals()
app.observe(totals)


@dataclass
class Account:
    """The columns that the handler needs; only these are read."""

    id: int
    handle: str


class Unavailable(Exception):
    """The network could not do it now."""


class Gone(PermanentError):
    """There is no such account any more: the row is dead until somebody looks at it."""


@app.rows(
    "accounts",
    table="example_accounts.accounts",
    due="refresh_due_at",
    where="active",
    tenant="organisation_id",
    per_tenant=5,  # organisations take turns: one with 10,000 accounts cannot starve one with 20
    every=clock.real(5 * 60),
    # "due": five minutes after it was due, however late it ran. "now": after it has finished.
    from_="now" if os.environ.get("ACCOUNTS_AGAIN") == "now" else "due",
    jitter=clock.real(60),
    timeout=clock.patience(120),
    retry=RetryPolicy(
        wait=tenacity.wait_fixed(clock.real(20)), stop=tenacity.stop_after_attempt(5)
    ),
)
def refresh(account: Account, session: Lazy[psycopg.Connection], context: Context) -> None:
    """A plain `def` runs in a thread and may block."""
    answer = call("GET", f"/accounts/{account.handle}", key=context.idempotency_key)
    match answer.status:
        case 200:
            videos = answer.body["videos"]
        case 404:
            raise Gone(f"{account.handle}: the network does not know it")
        case 429:
            pause = float(answer.headers["Retry-After"])
            raise Snooze("the network asks for a pause", after=pause)  # costs no attempt
        case status:
            raise Unavailable(f"{account.handle}: the network answers {status}")
    # Only now a connection is taken. What is written commits together with the row's completion.
    connection = session.open_in_thread()
    connection.execute(
        "update example_accounts.accounts set videos = %s, refreshed_at = now() where id = %s",
        (videos, account.id),
    )
    totals.add(videos)
    line = f"{account.handle}: updated {videos} videos"
    context.log.info(line)
