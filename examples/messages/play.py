"""Every scene in turn, with its figures beside the original's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from examples.common.crew import Crew
from examples.common.show import say, table, title, verdict
from examples.common.stage import Stage
from examples.messages.api import LATENCY
from examples.messages.scenes import (
    API,
    HEARD_WITHIN,
    PLAN,
    SLOTS,
    Adapting,
    Idle,
    Rate,
    Scenes,
    Speed,
    Step,
    Throttle,
)
from examples.messages.table import Conversations

STEPS = ((5, 3, 20), (30, 5, 30), (80, 7, 40), (200, 10, 50))  # due, slots, batch
USED = 0.95
SCANS = 3  # for each look, with those of the sweep that comes now and then
STARTING = 15  # when the worker begins and ends


@dataclass(frozen=True, slots=True)
class Size:
    """How long it takes. idle, seconds: real ones. counts: messages that fall due at once. fleet,
    messages: of the throttle, for each of two providers; away: for how long, heard: real seconds
    in which every replica must have heard of it. replicas, limit: of the provider's limit,
    calls a second; margin: how many less the fleet is told, as a busy machine brings some late."""

    idle: float = 3.0
    counts: Sequence[int] = (1, 5, 30, 50)
    backlog: int = 400
    steps: Sequence[tuple[int, int, int]] = STEPS
    fleet: int = 4
    messages: int = 100
    away: float = 20.0
    heard: float = HEARD_WITHIN
    replicas: Sequence[int] = (1, 3, 6)
    limit: int = 30
    margin: int = 0
    seconds: float = 8.0


def play(stage: Stage, size: Size | None = None, used: float = USED) -> bool:
    """Whether everything that it claims was true. used: the least share of a limit."""
    size = size or Size()
    found = Conversations(stage.connection)
    say(f"scale: {stage.clock}; times are the scenario's, where nothing else is said")
    say(f"adopted: {found.create()}")
    with Crew(stage.url, stage.clock, API) as crew:
        scenes = Scenes(stage, crew, found)
        idle = scenes.idle(size.idle)
        worker = scenes.worker("--concurrency", str(SLOTS))
        speeds = [scenes.speed(count) for count in size.counts]
        crew.stop(worker)
        problems = [*show_speed(idle, speeds)]
        problems += show_adapting(scenes.adapting(size.backlog, size.backlog // 2, 20.0))
        problems += show_steps([scenes.step(*step) for step in size.steps])
        problems += show_throttle(scenes.throttle(size.fleet, size.messages, size.away, size.heard))
        problems += show_rates(
            [scenes.rate(count, size.limit, size.margin, size.seconds) for count in size.replicas],
            used,
        )
        if double := found.double_starts():
            problems.append(f"{double} rows were in two hands at once")
    return verdict(problems)


def show_speed(idle: Idle, speeds: Sequence[Speed]) -> Iterator[str]:
    title(f"All due at once, {LATENCY} s a message, {SLOTS} at a time")
    columns = ("messages", "original", "its runs", "here", "ideal", "above ideal")
    rows: list[tuple[object, ...]] = [(0, "0 s", 1, "no call", "0 s", "-")]
    for one in speeds:
        above = f"{one.seconds / one.ideal - 1:.1%}"
        here, least = f"{one.seconds:.2f} s", f"{one.ideal:.1f} s"
        rows.append((one.messages, f"{one.was:.1f} s", one.runs, here, least, above))
    table(columns, rows)
    work = idle.work
    looks = f"the worker looked {idle.looks} times"
    told = (
        f"{work.scans} scans of an index, {work.rows_read} rows read, {work.rows_written} written"
    )
    say(f"With nothing due: in {idle.seconds:g} real seconds {looks}. Postgres counts\n{told};")
    say(f"the providers were called {idle.calls} times.")
    if work.rows_read or work.rows_written or idle.calls:
        yield "with nothing due something was done"
    if not idle.looks:
        yield "the idle worker has not asked"
    if work.scans > SCANS * idle.looks + STARTING:
        yield f"{work.scans} scans for {idle.looks} looks"
    for one in speeds:
        if one.seconds < one.ideal:
            yield f"{one.messages} messages were sent faster than can be"
        if one.runs > 1 and one.seconds > one.was:
            yield f"{one.messages} messages took longer than the original"


def show_adapting(found: Adapting) -> Iterator[str]:
    title(f"{found.messages} messages, one worker with --concurrency 2-40; a throttle half way")
    rows = [
        (f"{change.at - found.due:.2f}", change.before, change.slots, change.why)
        for change in found.changes
    ]
    table(("real s", "slots", "then", "why"), rows)
    throttle = [change for change in found.changes if change.why == "throttled"]
    before = [c for c in found.changes if c.why == "backlog" and c.at <= found.throttled_at]
    after = [c for c in found.changes if c.why == "backlog" and c.at > found.throttled_at]
    if len(before) < 3:
        yield "the slots did not rise with the backlog"
    if not throttle or any(c.slots != max(2, c.before // 2) for c in throttle[:1]):
        yield "a throttle did not halve the slots"
    if not after:
        yield "the slots did not recover"
    if found.changes[-1].why != "idle":
        yield "the slots did not go down when nothing was due"
    if found.attempts["done"].highest > 1:
        yield "a throttle has cost an attempt"


def show_steps(found: Sequence[Step]) -> Iterator[str]:
    title("The fixed table, --concurrency 3,10:5,51:7,101:10 --claim-batch 20,10:30,51:40,101:50")
    columns = ("due", "wanted: batch", "slots", "most at once, at the provider", "largest claim")
    table(columns, [(s.due, s.batch, s.slots, s.at_once, s.claimed) for s in found])
    for step in found:
        if step.at_once != step.slots:
            yield f"{step.due} due: {step.at_once} at once, not {step.slots}"
        if step.claimed > step.batch:
            yield f"{step.due} due: a claim of {step.claimed}"


def show_throttle(found: Throttle) -> Iterator[str]:
    title(f"Two providers, {found.replicas} replicas; one answers 131051 and names a time")
    heard = "none" if found.heard is None else f"the last {found.heard * 1000:.0f} ms after it"
    attempts = {outcome: (one.count, one.highest) for outcome, one in found.attempts.items()}
    table(
        ("of the fleet", "original", "here"),
        [
            ("answers 131051", "one a call", found.answers),
            ("to stay away for", "-", f"{found.named:.1f} s"),
            ("calls meanwhile, real time", "all that were due", heard),
            (f"of them after {found.within * 1000:.0f} ms", "-", found.parked),
            ("first call after the time named", "-", f"{found.again * 1000:+.0f} ms"),
            ("calls of the other provider meanwhile", "-", found.others),
            ("highest attempt of a message sent", "-", attempts["done"][1]),
            ("sent", "-", f"{found.sent} of {found.messages}"),
            ("connections, at most", "-", found.connections),
        ],
    )
    if found.parked:
        yield f"{found.parked} calls came while the provider was to be left alone"
    if found.attempts["done"].highest > 1:
        yield "a throttle has cost an attempt"
    if not found.others:
        yield "the other provider waited too"
    if found.sent != found.messages:
        yield f"not all was sent: {found.sent} of {found.messages}"
    if found.connections > PLAN:
        yield f"{found.connections} connections"


def show_rates(found: Sequence[Rate], used: float = USED) -> Iterator[str]:
    title(f"A provider that takes {found[0].limit} calls a second, as it counts them itself")
    columns = ("replicas", "calls", "fullest second", "refused", "used", "connections")
    rows = [(r.replicas, r.calls, r.busiest, r.over, f"{r.used:.1%}", r.connections) for r in found]
    table(columns, rows)
    say(f"in {found[0].seconds:g} real seconds; the database plan allows {PLAN} connections")
    for rate in found:
        if rate.over or rate.busiest > rate.limit:
            yield f"{rate.replicas} replicas passed the limit: {rate.busiest} in a second"
        if rate.used < used:
            yield f"{rate.replicas} replicas used {rate.used:.1%} of the limit"
        if rate.connections > PLAN:
            yield f"{rate.connections} connections"
