"""docs/events.md names every event and log line, with its level and keys, and no other."""

from __future__ import annotations

import ast
import asyncio
import datetime as dt
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import structlog

from tests.pages import ROOT, blocks
from tests.rows import row as a_row
from worker import events
from worker.events import Event
from worker.observers.log import LogObserver, configure
from worker.outcome import Fault
from worker.row import Row
from worker.transition import Transition

PAGE = "docs/events.md"
ROW = {"source", "key", "kind", "queue", "attempt", "worker", "trace_id?"}
ALWAYS = {"timestamp", "level", "event"}
LINE = re.compile(r"^\| `([\w.]+)` \| (\w+) \| (.+?) \| .+ \|$", re.MULTILINE)

SAMPLES: dict[Any, Any] = {
    str: "a text",
    int: 7,
    float: 0.25,
    Any: 7,
    str | None: "a text",
    float | None: 0.25,
    tuple[str, ...]: ("a", "b"),
    tuple[tuple[str, str], ...]: (("mail", "remind"),),
    bool: True,
    dt.datetime: dt.datetime.now(dt.UTC),
    dt.datetime | None: dt.datetime.now(dt.UTC),
    BaseException: ValueError("no luck"),
}
FAULT = Fault("ValueError", "no luck", "ValueError@shop:charge", None)


@dataclass(frozen=True, slots=True)
class Told:
    """level, keys: of one log line. A key that may be left out ends in ?"""

    level: str
    keys: frozenset[str]

    @property
    def required(self) -> set[str]:
        return {key for key in self.keys if not key.endswith("?")}

    @property
    def possible(self) -> set[str]:
        return {key.removesuffix("?") for key in self.keys}


def page() -> dict[str, Told]:
    text = (ROOT / PAGE).read_text("utf-8")
    told = {}
    for name, level, keys in LINE.findall(text):
        assert name not in told, f"{name} stands there twice"
        named = set(re.findall(r"`([\w?]+)`", keys))
        told[name] = Told(level, frozenset(named | (ROW if "*row*" in keys else set())))
    return told


TOLD = page()


@pytest.fixture(autouse=True)
def _structlog_as_it_was() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def logged(event: Event) -> dict[str, Any]:
    """The one line that an event becomes."""
    stream = io.StringIO()
    observer = LogObserver(configure("DEBUG", "json", stream), "DEBUG", "json")

    async def turn() -> None:
        observer(event)
        await asyncio.sleep(0)

    asyncio.run(turn())
    line: dict[str, Any] = json.loads(stream.getvalue())
    return line


def kinds_of_event() -> list[type[Event]]:
    classes = (value for value in vars(events).values() if isinstance(value, type))
    return [one for one in classes if issubclass(one, Event) and one is not Event]


# A row that is settled has several lines; to a start `worker run` adds what is in its banner.
PLAIN = [kind for kind in kinds_of_event() if kind.name not in ("row.settled", "worker.started")]


def sample(kind: type[Event], row: Row) -> Event:
    hints = {name: hint for name, hint in get_type_hints(kind).items() if name != "name"}
    return kind(**{name: row if hint is Row else SAMPLES[hint] for name, hint in hints.items()})


def check(line: dict[str, Any]) -> None:
    told = TOLD[line["event"]]
    keys = set(line) - ALWAYS
    assert line["level"] == told.level, line
    assert told.required <= keys, f"{line['event']} lacks {told.required - keys}"
    assert keys <= told.possible, f"{line['event']} has {keys - told.possible} too"


@pytest.mark.parametrize("trace", [None, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"])
@pytest.mark.parametrize("kind", PLAIN, ids=lambda kind: kind.name)
def test_an_event_is_told_as_it_is_logged(kind: type[Event], trace: str | None) -> None:
    check(logged(sample(kind, a_row(trace=trace))))


SETTLED = [
    Transition("done"),
    Transition("snooze", delay=5.0, fault=FAULT),
    Transition("released"),
    Transition("cancelled", fault=FAULT),
    Transition("retry", delay=5.0),
    Transition("retry", next_at=dt.datetime.now(dt.UTC), fault=FAULT),
    Transition("dead", fault=FAULT),
]


@pytest.mark.parametrize("transition", SETTLED, ids=lambda transition: transition.verb)
def test_so_is_every_way_to_settle(transition: Transition) -> None:
    check(logged(events.RowSettled(a_row(), transition, seconds=0.1)))


def test_no_key_is_optional_that_is_always_there() -> None:
    """Nor one that never is: each `?` is there in one line, and not in another."""
    seen: dict[str, list[set[str]]] = {}
    for row in (a_row(), a_row(trace="00-a-b-01")):
        lines = [logged(events.RowSettled(row, one, seconds=0.1)) for one in SETTLED]
        for line in lines:
            seen.setdefault(line["event"], []).append(set(line))
    for name, keys in seen.items():
        optional = {key.removesuffix("?") for key in TOLD[name].keys if key.endswith("?")}
        assert set.union(*keys) - set.intersection(*keys) == optional, name


def test_every_line_that_the_code_writes_is_told_and_no_other() -> None:
    names = {kind.name for kind in kinds_of_event()} | {"row.retry", "row.dead"}
    for path in (ROOT / "worker").rglob("*.py"):
        names |= set(_written(path))
    assert set(TOLD) == names


def _written(path: Path) -> Iterator[str]:
    """The dotted names in calls such as log.info("settings.warning", ...)."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        match node:
            case ast.Call(
                func=ast.Attribute(
                    attr="debug" | "info" | "warning" | "error" | "exception" | "critical"
                ),
                args=[ast.Constant(value=str(name)), *_],
            ) if re.fullmatch(r"\w+(\.\w+)+", name):
                yield name


@pytest.mark.process
def test_the_lines_of_a_process(db_url: str, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "from worker import App\n\napp = App()\n\n\n@app.handler\ndef nap() -> None: ...\n", "utf-8"
    )
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "worker", "drain", "--app", "app:app", "--log-level", "DEBUG"),
            *("--health", "127.0.0.1:0"),
        ],
        cwd=tmp_path,
        env={**os.environ, "DATABASE_URL": db_url, "DUEROW_NO_SUCH_SETTING": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    names = [line["event"] for line in lines]
    for expected in ("settings.warning", "worker.started", "worker.draining", "worker.stopped"):
        assert expected in names, ended.stderr
    for line in lines:
        if "logger" not in line:  # it is none of another library
            check(line)


def test_an_observer_that_raises_is_told() -> None:
    stream = io.StringIO()
    configure("DEBUG", "json", stream)

    def broken(_: Event) -> None:
        raise ValueError("no luck")

    events.Events((broken,)).emit(events.ChoreRan("sweep", "nothing", 0.1))
    check(json.loads(stream.getvalue()))


def test_the_observer_of_the_page() -> None:
    [block] = blocks(PAGE, "python")
    names: dict[str, Any] = {}
    exec(compile(block.text, str(block), "exec"), names)
    row = a_row(key=7)
    for verb in ("done", "dead"):
        told = events.RowSettled(row, Transition(verb), seconds=0.1)
        events.Events(names["app"].observers).emit(told)
    assert names["dead"] == [7]
