"""The app: one handler, which asks the carrier about up to fifty parcels in one call.

    worker drain --app examples.orders.app:app --concurrency 2 --max-seconds 24m

There is no list of clients, no page and no batch number: what has been asked is not due any more.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import asyncpg
import tenacity

from examples.common.clock import Clock
from examples.common.http import call_async
from examples.orders.api import MOST
from worker import App, Batch, Batching, Dead, Lazy, Retry, RetryPolicy

clock = Clock.from_environment()
app = App()

AGAIN = dt.timedelta(seconds=clock.real(4 * 3600))  # for a parcel that is on its way
ASK_AGAIN = clock.real(3600)  # seconds, where the carrier asks for it

WRITE = """
update example_orders.orders o
   set state = a.state, checked_at = now(), checked_for = o.next_check_at
  from unnest($1::bigint[], $2::text[]) as a(id, state) where o.id = a.id
"""


@dataclass
class Order:
    """The columns that the handler needs; only these are read."""

    id: int
    tracking_number: str


class Unavailable(Exception):
    """The carrier could not do it now: all parcels of the call are tried again."""


@app.rows(
    "orders",
    table="example_orders.orders",
    due="next_check_at",
    where="open",
    tenant="client_id",
    per_tenant=10,  # clients take turns: so many orders of one in a claim while others wait
    batch=Batching(size=MOST),
    timeout=clock.patience(120),
    retry=RetryPolicy(
        wait=tenacity.wait_fixed(clock.real(300)), stop=tenacity.stop_after_attempt(12)
    ),
)
async def track(orders: Batch[Order], session: Lazy[asyncpg.Connection]) -> None:
    """Each parcel has an answer of its own, whatever becomes of the other forty-nine."""
    numbers = [order.data.tracking_number for order in orders]
    answer = await call_async("POST", "/track", {"numbers": numbers})
    if answer.status != 200:
        raise Unavailable(f"the carrier answers {answer.status}")
    states: dict[str, str] = answer.body
    # Only now a connection is taken. What is written commits together with the answers.
    connection = await session.open()
    found = [(o.data.id, states.get(o.data.tracking_number)) for o in orders]
    await connection.execute(WRITE, [one for one, _ in found], [state for _, state in found])
    for order in orders:
        match states.get(order.data.tracking_number):
            case "delivered":
                order.done()  # never due again
            case "on its way":
                order.done(AGAIN)
            case "ask again":
                order.settle(Retry("the carrier does not know yet", after=ASK_AGAIN))
            case _:
                order.settle(Dead("the carrier does not know the number"))
