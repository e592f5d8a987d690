"""Every scene in turn, with its figures beside the original's."""

from __future__ import annotations

from collections.abc import Iterator

from examples.common.crew import Crew
from examples.common.show import say, table, title, verdict
from examples.common.stage import Stage
from examples.orders.api import MOST
from examples.orders.original import LIMIT
from examples.orders.scenes import (
    API,
    BUDGET,
    MINUTE,
    PER_TENANT,
    SIZES,
    SLOTS,
    Answers,
    Client,
    Ended,
    Outage,
    Runs,
    Sample,
    Scenes,
)
from examples.orders.table import Orders

SLACK = 4.0  # real seconds that this machine may take itself, or stand still
LONG_RUN = 20 * MINUTE
WINDOW = 15 * MINUTE  # of the alerts: what was before the run is none of its business then
HELD = 2 * SLOTS * MOST  # orders that a run holds: as many claimed ahead as under way
AHEAD = 1000  # orders that one run may be ahead of another, which holds the last of a client


def play(stage: Stage) -> bool:
    """Whether everything that it claims was true."""
    orders = Orders(stage.connection)
    say(f"scale: {stage.clock}; times are the scenario's")
    say(f"adopted: {orders.create()}")
    slack = stage.clock.told(SLACK)
    with Crew(stage.url, stage.clock, API) as crew:
        scenes = Scenes(stage, crew, orders)
        problems = [*_outage(scenes.outage()), *_answers(scenes.answers())]
        found = scenes.runs()
        problems += _runs(found)
        problems += _clients(found.clients)
        problems += _samples(found, slack)
    return verdict(problems)


# -- how it is told -------------------------------------------------------------------------------


def _answers(found: Answers) -> Iterator[str]:
    title("Fifty orders in one call: 48 delivered, one to ask about again, one unknown")
    say(f"numbers in each call: {found.calls}")
    say(", ".join(f"{count} {outcome}" for outcome, count in sorted(found.outcomes.items())))
    say(f"exit code {found.run.code}: an attempt has failed; {found.run.said}")
    if found.calls != [50]:
        yield "fifty orders were not one call"
    if found.outcomes != {"done": 48, "retry": 1, "dead": 1}:
        yield "the fifty were not answered one by one"
    if found.run.code != 7:
        yield f"the run with a failed attempt has ended with {found.run.code}"


def _runs(found: Runs) -> Iterator[str]:
    title(
        f"{found.orders:,} orders of {len(SIZES)} clients, {SLOTS} calls at a time;"
        f" a run claims for {BUDGET / 60:.0f} min, its limit is {LIMIT / 60:.0f}"
    )
    rows = [_row(f"{n}", run) for n, run in enumerate(found.runs, 1)]
    rows.insert(1, _row("by hand, beside it, --max-rows 500", found.by_hand))
    table(("run", "done", "given back", "left", "last call began", "exit code"), rows)
    say(f"the first run had ended {-found.runs[0].over:.2f} s (real) before its limit")
    say(f"tracked, as the carrier counts: {found.tracked} of {found.orders}")
    say(f"tracked twice: {found.twice}; rows in two hands at once: {found.double_starts}")
    say(f"calls: {len(found.calls)}, with {sum(found.calls) / len(found.calls):.1f} numbers each")
    first, last = found.runs[0], found.runs[-1]
    if not first.said["left"] or len(found.runs) < 2:
        yield "the first run left nothing to go on with"
    if last.said["left"]:
        yield f"{last.said['left']} orders are left"
    if any(run.code for run in (*found.runs, found.by_hand)):
        yield "a run in which nothing failed has not ended with 0"
    if max(run.late for run in found.runs) > SLACK:
        yield "a run has begun calls after its time"
    if max(run.over for run in found.runs) > SLACK:
        yield "a run has taken longer than its limit"
    if found.by_hand.said["settled"] != 500:
        yield f"the run of 500 rows has done {found.by_hand.said['settled']}"
    if not found.overlapped:
        yield "the two runs did not overlap"
    if found.tracked != found.orders:
        yield f"{found.orders - found.tracked} orders were not tracked"
    if found.twice or found.double_starts:
        yield f"{found.twice} orders were tracked twice"


def _row(name: str, run: Ended) -> tuple[object, ...]:
    side = "before" if run.late < 0 else "after"
    last = f"{abs(run.late):.2f} s (real) {side} its time was over"
    return name, run.span.done, run.said["released"], run.said["left"], last, run.code


def _clients(found: list[Client]) -> Iterator[str]:
    title("How many orders of all clients are tracked before the last one of each")
    columns = (
        "orders",
        "its share",
        "here",
        "first come",
        "after, min",
        "original, runs",
        "first fix, runs",
    )
    rows = []
    for one in found:
        after = "next run" if one.seconds is None else f"{one.seconds / 60:.1f}"
        rows.append((one.orders, one.share, one.place, one.queued, after, one.was, one.batches))
    table(columns, rows)
    say(
        "Its share: as many of each other client, if that has so many. First come: in the order of"
        "\ndue times. The original and its first fix: one order a call, runs of 25 min, computed."
    )
    for one in found:
        if one.place > most(one.orders):
            yield f"a client of {one.orders} orders has waited longer than its share"


def most(orders: int) -> int:
    """Within so many orders of all clients one of so many must be through. A claim takes ten of
    each, every tenth row goes by its due time, two workers each take turns of their own, and what
    they hold already comes first: it was up to a quarter more than the share. Where one of them
    stands still for a moment the other goes on."""
    rows = sum(min(orders + PER_TENANT, other) for other in SIZES)
    return int(rows / 0.75) + 2 * HELD + AHEAD


def _samples(found: Runs, slack: float) -> Iterator[str]:
    title("The numbers to watch, during the first run")
    shown = [s for i, s in enumerate(found.samples) if i % 3 == 0 or s is found.samples[-1]]
    columns = ("run, min", "done", "errors, %", "backlog", "alerts")
    table(columns, [_sample(sample) for sample in shown])
    fired = found.fired_at
    for alert, at in fired.items():
        say(f"alert {alert}: since {at / 60:.1f} min")
    if not LONG_RUN <= fired.get("run_time", 0.0) <= LONG_RUN + 2 * MINUTE + slack:
        yield "the alert of a long run did not come when it should"
    for alert in ("error_rate", "backlog"):
        if any(alert in sample.alerts and sample.seconds > WINDOW for sample in found.samples):
            yield f"an alert came for nothing: {alert}"


def _sample(sample: Sample) -> tuple[object, ...]:
    numbers = sample.numbers
    return (
        float(numbers["run_minutes"] or 0),
        numbers["done"],
        float(numbers["error_rate"]),
        numbers["backlog"],
        ", ".join(sample.alerts) or "-",
    )


def _outage(found: Outage) -> Iterator[str]:
    title(f"The carrier answers 503: {found.orders} orders that have been due for 20 min")
    first, second = found.runs
    for alert in found.alerts:
        told = ", ".join(f"{name} {value}" for name, value in found.said[alert].items())
        say(f"alert {alert}: {told}")
    say(f"exit code {first.code}: {first.said}")
    say(f"five minutes later, the carrier is back: exit code {second.code}, {second.said}")
    say(f"alerts once the 15 min are over: {', '.join(found.after) or 'none'}")
    if found.alerts != ["error_rate", "backlog"]:
        yield f"alerts while the carrier was away: {', '.join(found.alerts) or 'none'}"
    if found.after:
        yield f"alerts that stay: {', '.join(found.after)}"
    if (first.code, second.code) != (7, 0) or second.said["settled"] != found.orders:
        yield "the orders were not tracked once the carrier was back"
