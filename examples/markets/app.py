"""The app on the event loop, with asyncpg.

    worker run --app examples.markets.app:app --concurrency 3 --pool-size 3

While the API takes its 10 to 15 seconds no connection is held.
"""

from __future__ import annotations

import asyncpg

from examples.common.http import call_async
from examples.markets.market import TABLE, Market, good
from worker import App, Context, Lazy

app = App()

INSERT = """
insert into example_markets.predictions (market_id, made_for, outcome, probability)
values ($1, $2, $3, $4)
"""


@app.rows("markets", **TABLE)
async def predict(market: Market, session: Lazy[asyncpg.Connection], context: Context) -> None:
    path = f"/markets/{market.symbol}"
    prices = good(await call_async("GET", f"{path}/prices"))
    news = good(await call_async("GET", f"{path}/news"))
    asked = {"prices": prices, "news": news}
    forecast = good(await call_async("POST", f"{path}/forecast", asked))

    # The predictions and the row's completion are one transaction: both are there, or neither is.
    connection = await session.open()
    made_for = context.row.occurrence
    rows = [(market.id, made_for, outcome, chance) for outcome, chance in forecast.items()]
    await connection.executemany(INSERT, rows)
    line = f"{market.symbol}: {len(rows)} predictions"
    context.log.info(line)
