"""Every scene in turn, with its figures beside the original's."""

from __future__ import annotations

from collections.abc import Iterator

from examples.common.crew import Crew
from examples.common.show import say, table, title, verdict
from examples.common.stage import Stage
from examples.markets.api import OUTCOMES
from examples.markets.scenes import API, MARKETS, WAYS, Hang, Kill, Scenes, Speed
from examples.markets.table import Markets


def play(stage: Stage) -> bool:
    """Whether everything that it claims was true."""
    markets = Markets(stage.connection)
    say(f"scale: {stage.clock}; times are the scenario's")
    say(f"adopted: {markets.create()}")
    with Crew(stage.url, stage.clock, API) as crew:
        return verdict(list(_scenes(Scenes(stage, crew, markets))))


def _scenes(scenes: Scenes) -> Iterator[str]:
    title(f"{MARKETS} markets of 10 to 15 s, all due at once")
    found = [(way, scenes.speed(way, slots=3, pool=3)) for way in WAYS]
    found.append(("async def", scenes.speed("async def", slots=MARKETS, pool=1)))
    yield from _speed(found)
    title("The news of one market are never answered; timeout 30 s, 3 slots")
    yield from _hang([(way, scenes.hang(way)) for way in WAYS])
    title("A worker is killed between its predictions and the row's completion")
    for way in WAYS:
        yield from _kill(way, scenes.kill(way))


def _speed(found: list[tuple[str, Speed]]) -> Iterator[str]:
    columns = (
        "handler", "slots", "one by one", "here", "ideal", "above ideal",
        "pool", "open at most", "in use at most", "/healthz says", "pool use",
    )  # fmt: skip
    rows = []
    for way, one in found:
        here = (f"{one.seconds:.2f} s", f"{one.ideal:.1f} s", f"{one.seconds / one.ideal - 1:.1%}")
        pool = (one.pool.size, one.pool.most_open, one.pool.most_used, one.pool.told)
        use = f"{one.pool.use:.1%}"
        rows.append((way, one.slots, f"{one.one_by_one:.0f} s", *here, *pool, use))
        if one.missing:
            yield f"{way}: {one.missing} markets have not got their {len(OUTCOMES)} predictions"
        if max(one.pool.most_open, one.pool.told) > one.pool.size:
            yield f"{way}: more connections were open than the pool may have"
    table(columns, rows)


def _hang(found: list[tuple[str, Hang]]) -> Iterator[str]:
    columns = ("handler", "its slot is free", "outcome", "the others", "ideal", "open at most")
    rows = []
    for way, one in found:
        free = f"{one.late:.2f} s (real) after its timeout"
        others = f"{one.others} in {one.seconds:.2f} s"
        told = f"{one.outcome}: {one.error}"
        rows.append((way, free, told, others, f"{one.ideal:.1f} s", one.pool.most_open))
        if one.error != "HandlerTimeout":
            yield f"{way}: the market that hangs ended otherwise: {told}"
        if one.pool.most_open > one.pool.size:
            yield f"{way}: more connections were open than the pool may have"
    table(columns, rows)


def _kill(way: str, found: Kill) -> Iterator[str]:
    say(
        f"{way}: {found.written} predictions written, worker killed, {found.after} there; "
        f"run again: {found.again} there (attempts: {', '.join(found.outcomes)})"
    )
    used, size = found.told
    say(f"{way}: before the kill /healthz said: {used} of {size} sessions in use")
    if (used, size) != (1, 1):
        yield f"{way}: the health endpoint did not tell of the session"
    # Ids that an earlier scene's late session drew count too: no fewer than these.
    if found.written < len(OUTCOMES) or found.after or not found.claimed:
        yield f"{way}: the predictions and the completion did not stand and fall together"
    if found.again != len(OUTCOMES):
        yield f"{way}: {found.again} predictions after the second run"
