"""The smallest app: what the worker itself needs is seen beside it."""

from __future__ import annotations

from worker import App

app = App()


@app.handler("plain")
async def plain() -> None: ...
