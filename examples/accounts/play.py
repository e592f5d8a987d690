"""Every scene in turn, with its figures beside the original's."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from examples.accounts.scenes import API, Drift, Overlap, Scenes, Share, Speed, Spread, Trouble
from examples.accounts.table import Accounts
from examples.common.clock import Clock
from examples.common.crew import Crew, Member
from examples.common.show import say, table, title, verdict
from examples.common.stage import Stage

COUNTS = (10, 50, 100, 200)
FASTER = 5  # times: two rounds of five minutes are long


def play(stage: Stage) -> bool:
    """Whether everything that it claims was true."""
    accounts = Accounts(stage.connection)
    say(f"scale: {stage.clock}; times are the scenario's")
    say(f"adopted: {accounts.create()}")
    with Crew(stage.url, stage.clock, API) as crew:
        problems = [
            *_one_worker(stage, crew, accounts),
            *_three(stage, crew, accounts),
            *_two_organisations(stage, crew, accounts),
        ]
    clock = Clock(stage.clock.scale / FASTER)
    with Crew(stage.url, clock, API) as crew:
        faster = dataclasses.replace(stage, clock=clock)
        problems += _five_minutes(faster, crew, accounts)
    return verdict(problems)


def _one_worker(stage: Stage, crew: Crew, accounts: Accounts) -> Iterator[str]:
    scenes = Scenes(stage, crew, accounts)
    worker = scenes.worker()
    _speed([scenes.speed(count) for count in COUNTS])
    yield from _spread(scenes.spread())
    yield from _trouble(scenes.trouble())
    crew.stop(worker)
    _log(worker)


def _three(stage: Stage, crew: Crew, accounts: Accounts) -> Iterator[str]:
    scenes = Scenes(stage, crew, accounts)
    for _ in range(2):
        scenes.worker()
    yield from _overlap(scenes.overlap())
    crew.stop_all()


def _two_organisations(stage: Stage, crew: Crew, accounts: Accounts) -> Iterator[str]:
    scenes = Scenes(stage, crew, accounts)
    scenes.worker()
    yield from _share(scenes.share())
    accounts.retire()
    crew.stop_all()


def _five_minutes(stage: Stage, crew: Crew, accounts: Accounts) -> Iterator[str]:
    scenes = Scenes(stage, crew, accounts)
    scenes.worker()
    title(f"Due again five minutes later ({stage.clock})")
    yield from _from_due(scenes.from_due())
    crew.stop_all()
    scenes.worker(ACCOUNTS_AGAIN="now")
    _from_now(scenes.from_now())
    crew.stop_all()


# -- how it is told -------------------------------------------------------------------------------


def _speed(found: list[Speed]) -> None:
    title("All due at once, 3 s a call, one worker with 10 slots")
    columns = ("accounts", "one by one", "batches of 10", "here", "ideal", "above ideal")
    rows = [
        (
            one.accounts,
            f"{one.was:.0f} s",
            f"{one.batches:.0f} s",
            f"{one.seconds:.2f} s",
            f"{one.ideal:.0f} s",
            f"{one.seconds / one.ideal - 1:.1%}",
        )
        for one in found
    ]
    table(columns, rows)


def _spread(found: Spread) -> Iterator[str]:
    title(f"When the next runs of these {found.counts.total()} are to begin: accounts a second")
    tens = range(0, max(found.counts) + 1, 10)
    rows = [(f"+{ten} s", *(found.counts[ten + one] for one in range(10))) for ten in tens]
    table(("from", *map(str, range(10))), rows)
    say(f"at most {max(found.counts.values())} in one second; without jitter: {found.at_once}")
    if max(found.counts.values()) > found.at_once / 4:
        yield "the due times are not spread"


def _trouble(found: Trouble) -> Iterator[str]:
    title(f"One account always fails, another takes {found.latency:.0f} s")
    say(f"the other {found.others}: {found.seconds:.2f} s, ideal {found.ideal:.0f} s")
    say(
        f"the slow one: {found.slow_ended:.2f} s; "
        f"batches of 10, which wait for it: {found.batches:.0f} s until the last account"
    )
    tries = ", ".join(f"{run.outcome} at {run.ended:.2f} s (real)" for run in found.failing)
    say(f"the one that fails: {tries}")
    if found.seconds >= found.slow_ended:
        yield "others waited for the slow account"
    if not found.failing or any(run.outcome == "done" for run in found.failing):
        yield "the failing account did not fail"


def _log(worker: Member) -> None:
    title("From the worker's log")
    lines = [line for line in worker.said() if "claimed" in line or "updated" in line]
    for line in [*lines[:6], "...", lines[-1]]:
        say(f"  {line}")


def _overlap(found: Overlap) -> Iterator[str]:
    title("Two workers; meanwhile a third starts, and a cron job runs `worker drain`")
    for name, count in found.by_worker.items():
        say(f"  {name}: {count} refreshes")
    say(f"refreshed, as the API counts: {found.refreshed} of {found.accounts}")
    say(f"twice for one due time: {found.twice}; told to slow down, and put off: {found.throttled}")
    if found.refreshed != found.accounts:
        yield f"{found.accounts - found.refreshed} accounts were not refreshed"
    if found.twice:
        yield f"{found.twice} accounts were refreshed twice"
    if found.double_starts:
        yield f"{found.double_starts} rows were in two hands at once"


def _share(found: Share) -> Iterator[str]:
    title(f"An organisation of {found.large} accounts and one of {found.small}, one worker")
    say(f"the {found.small}: {found.seconds:.2f} s, ideal on half of the slots {found.ideal:.0f} s")
    say(f"if they had to wait behind the {found.large}: {found.queued:.0f} s")
    say(f"meanwhile refreshed of the {found.large}: {found.meanwhile}")
    if found.seconds > found.queued / 4:
        yield "a large organisation starves a small one"
    if not found.meanwhile:
        yield "a small organisation stops a large one"


def _from_due(found: Drift) -> Iterator[str]:
    say(
        f"after it was due: {found.rounds} rounds later off by {found.off * 1e6:.0f} us, "
        f"though runs began up to {found.late:.0f} s late"
    )
    if found.off:
        yield "due times drift"


def _from_now(found: Drift) -> None:
    say(f"after it had finished: off by {found.off * 1000:.1f} ms of real time at most")
