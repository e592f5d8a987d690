"""Wires between worker processes and the server, each of which can go silent by itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, TypeVar

from tests.wire import Wire, wired

T = TypeVar("T")


class Wires:
    """They are carried by an event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._open = AsyncExitStack()

    def __enter__(self) -> Wires:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._run(self._open.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def lay(self, url: str) -> tuple[Wire, str]:
        """A new wire to the server of `url`, and the URL that leads through it."""
        return self._run(self._open.enter_async_context(wired(url)))

    def cut(self, wire: Wire) -> None:
        """Nothing passes any more, and neither end is told."""
        self._loop.call_soon_threadsafe(wire.mute)

    def mend(self, wire: Wire) -> None:
        self._loop.call_soon_threadsafe(wire.unmute)

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)
