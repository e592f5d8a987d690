"""The same in threads, with psycopg: for a client library that blocks.

worker run --app examples.markets.threads:app --concurrency 3 --pool-size 3
"""

from __future__ import annotations

import psycopg

from examples.common.http import call
from examples.markets.market import TABLE, Market, good
from worker import App, Context, Lazy

app = App()

INSERT = """
insert into example_markets.predictions (market_id, made_for, outcome, probability)
values (%s, %s, %s, %s)
"""


@app.rows("markets", **TABLE)
def predict(market: Market, session: Lazy[psycopg.Connection], context: Context) -> None:
    path = f"/markets/{market.symbol}"
    prices = good(call("GET", f"{path}/prices"))
    news = good(call("GET", f"{path}/news"))
    forecast = good(call("POST", f"{path}/forecast", {"prices": prices, "news": news}))

    connection = session.open_in_thread()
    made_for = context.row.occurrence
    rows = [(market.id, made_for, outcome, chance) for outcome, chance in forecast.items()]
    with connection.cursor() as cursor:
        cursor.executemany(INSERT, rows)
    line = f"{market.symbol}: {len(rows)} predictions"
    context.log.info(line)
