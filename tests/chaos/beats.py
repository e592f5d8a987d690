"""The app of the runs on schedules: one tick a second, none of which may be lost."""

from __future__ import annotations

from tests.chaos.handlers import app, ledger, soon
from worker import Context

__all__ = ["app"]


@app.schedule("* * * * * *", tick_as="tick", catch_up="all")
@app.handler("beat", retry=soon, timeout=0)
async def beat(tick: str, context: Context) -> None:
    with ledger.run(context):
        pass
