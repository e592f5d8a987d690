"""Log lines: which there are, what is in them, and what never is."""

from __future__ import annotations

import asyncio
import datetime as dt
import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from tests.rows import row as a_row
from worker import events
from worker.events import Event, RowSettled
from worker.observers.log import LogObserver, Sink, configure, format_for
from worker.observers.mask import masked
from worker.outcome import Fault
from worker.row import Row
from worker.transition import Transition

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.fixture(autouse=True)
def _structlog_as_it_was() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def _no_handlers_of_pytest(monkeypatch: pytest.MonkeyPatch) -> None:
    """A root logger as in a process of its own: pytest adds to it just before the test."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "level", root.level)
    monkeypatch.setattr(root, "handlers", NoLaterHandlers())


class NoLaterHandlers(list[logging.Handler]):
    """Takes no handler of pytest's, so that it stays empty until the test adds one."""

    def append(self, handler: logging.Handler) -> None:
        if not type(handler).__module__.startswith("_pytest"):
            super().append(handler)


def logged(*seen: Event, level: str = "INFO", format: Any = "json") -> str:
    """What these events of one turn of a loop write."""
    stream = io.StringIO()
    observer = LogObserver(configure(level, format, stream), level, format)

    async def turn() -> None:
        for event in seen:
            observer(event)
        await asyncio.sleep(0)

    asyncio.run(turn())
    return stream.getvalue()


def lines(*seen: Event, level: str = "INFO") -> list[dict[str, Any]]:
    return [json.loads(line) for line in logged(*seen, level=level).splitlines()]


def settled(transition: Transition, row: Row | None = None) -> RowSettled:
    return RowSettled(row or a_row(), transition, seconds=0.0123)


FAULT = Fault("ValueError", "card 4111 refused", "ValueError@shop:charge", "Traceback ...")


def test_a_row_that_is_done_is_one_line() -> None:
    row = a_row(key=7, kind="charge", queue="pay", attempt=2, owner=12)
    [line] = lines(settled(Transition("done"), row))
    stamp = dt.datetime.fromisoformat(line.pop("timestamp"))
    assert abs((dt.datetime.now(dt.UTC) - stamp).total_seconds()) < 60
    assert line == {
        "level": "info",
        "event": "row.settled",
        "source": "jobs",
        "kind": "charge",
        "queue": "pay",
        "outcome": "done",
        "key": 7,
        "attempt": 2,
        "worker": 12,
        "duration_ms": 12.3,
        "wait_ms": 1000,
    }


def test_a_retry_tells_when_and_why_but_not_in_the_errors_own_words() -> None:
    [line] = lines(settled(Transition("retry", delay=60.0, fault=FAULT)))
    assert (line["event"], line["level"]) == ("row.retry", "info")
    assert (line["error_type"], line["error_fingerprint"]) == ("ValueError", FAULT.fingerprint)
    ahead = dt.datetime.fromisoformat(line["next_at"]) - dt.datetime.now(dt.UTC)
    assert 55 < ahead.total_seconds() <= 60
    assert "4111" not in json.dumps(line)


def test_a_dead_row_is_a_warning() -> None:
    [line] = lines(settled(Transition("dead", fault=FAULT)), level="WARNING")
    assert (line["event"], line["level"]) == ("row.dead", "warning")
    assert line["error_type"] == "ValueError"


@pytest.mark.parametrize("verb", ["snooze", "released", "cancelled"])
def test_other_ends_are_settled_with_their_outcome(verb: Any) -> None:
    fault = Fault("Snooze", "later", "Snooze", None)
    [line] = lines(settled(Transition(verb, delay=5.0, fault=fault)))
    assert (line["event"], line["outcome"]) == ("row.settled", verb)
    assert "error_type" not in line


def test_the_trace_id_is_that_of_the_producer() -> None:
    row = a_row(trace=TRACE)
    assert lines(settled(Transition("done"), row))[0]["trace_id"] == TRACE[3:35]
    assert lines(events.RowLost(row, "done"))[0]["trace_id"] == TRACE[3:35]


def test_a_key_of_any_type_and_a_kind_with_quotes() -> None:
    row = a_row(key='a"b', kind='say "hi"\n', queue="ü")
    [line] = lines(settled(Transition("done"), row))
    assert (line["key"], line["kind"], line["queue"]) == ('a"b', 'say "hi"\n', "ü")


def test_never_the_payload() -> None:
    row = a_row(args='{"secret_plan": "cheese"}')
    seen = (
        events.RowStarted(row),
        events.RowLost(row, "done"),
        events.RowAbandoned(row, 3.0),
        settled(Transition("done", result='"cheese"'), row),
        settled(Transition("dead", fault=FAULT), row),
    )
    for format in ("json", "console"):
        text = logged(*seen, level="DEBUG", format=format)
        assert text.count("row.") == 5
        assert "cheese" not in text


def test_claims_and_starts_are_for_debugging() -> None:
    seen = (events.RowsClaimed("jobs", 10, 2, 0.0042), events.RowStarted(a_row()))
    assert lines(*seen) == []
    claim, start = lines(*seen, level="DEBUG")
    assert (claim["event"], claim["level"]) == ("row.claimed", "debug")
    assert (claim["count"], claim["duration_ms"]) == (2, 4.2)
    assert start["event"] == "row.started"


def test_the_level_counts_for_rows_too() -> None:
    assert lines(settled(Transition("done")), level="WARNING") == []


def test_other_events_keep_their_names_and_fields() -> None:
    found = lines(
        events.WorkerDraining(12, 3, 4, 25.0),
        events.DatabaseLost("claim", "OSError: gone", 0.4),
        events.RowLost(a_row(key=9), "done"),
        events.ServiceFailed("chores", RuntimeError("oh")),
    )
    assert [(line["event"], line["level"]) for line in found] == [
        ("worker.draining", "info"),
        ("db.reconnecting", "warning"),
        ("row.lost", "warning"),
        ("service.failed", "error"),
    ]
    assert found[0]["running"] == 3
    assert found[1]["retry_in_ms"] == 400
    assert found[2]["key"] == 9
    assert found[3]["error_type"] == "RuntimeError"
    assert "RuntimeError: oh" in found[3]["exception"]


def test_lines_of_one_turn_are_written_together_and_in_order() -> None:
    class Counting(io.StringIO):
        writes = 0

        def write(self, text: str) -> int:
            self.writes += 1
            return super().write(text)

    stream = Counting()
    observer = LogObserver(configure(stream=stream, format="json"))

    async def turn() -> None:
        for number in range(100):
            observer(settled(Transition("done"), a_row(key=number)))
        await asyncio.sleep(0)
        assert stream.writes == 1
        observer(settled(Transition("done"), a_row(key=100)))
        observer(events.WorkerStopped(1, 101, 0, 0))  # written at once, after what waited

    asyncio.run(turn())
    found = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line.get("key") for line in found] == [*range(101), None]
    assert stream.writes == 3


def test_a_reader_that_is_gone_does_not_stop_a_worker() -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    Sink(Broken()).write("line")


def test_handlers_own_lines_are_in_the_same_form_and_masked() -> None:
    stream = io.StringIO()
    configure("INFO", "json", stream)
    structlog.get_logger("duerow.handler").info(
        "paid", api_key="abc", url="postgresql://u:hunter2@h/d", amount=3
    )
    logging.getLogger("shop").warning("slow %s", "card")
    logging.getLogger("shop").debug("not shown")
    first, second = map(json.loads, stream.getvalue().splitlines())
    assert (first["event"], first["amount"], first["api_key"]) == ("paid", 3, "***")
    assert "hunter2" not in first["url"]
    assert (second["event"], second["level"], second["logger"]) == ("slow card", "warning", "shop")


def test_logging_that_somebody_set_up_is_left_alone() -> None:
    mine = logging.NullHandler()
    logging.getLogger().addHandler(mine)
    configure("INFO", "json", io.StringIO())
    assert logging.getLogger().handlers == [mine]


def test_a_terminal_gets_text_with_the_errors_words_and_no_codes() -> None:
    text = logged(settled(Transition("dead", fault=FAULT)), format="console")
    assert "row.dead" in text
    assert "card 4111 refused" in text
    assert "\x1b" not in text


def test_auto_is_json_off_a_terminal() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    assert format_for("auto", io.StringIO()) == "json"
    assert format_for("auto", Terminal()) == "console"
    assert format_for("json", Terminal()) == "json"


def test_masked_goes_through_everything_and_changes_nothing() -> None:
    given = {
        "donation_id": 7,
        "card_number": "4111",
        "nested": [{"Authorization": "Bearer x"}, "postgresql://u:pw12@h/d"],
        "password": None,
    }
    assert masked(given) == {
        "donation_id": 7,
        "card_number": "***",
        "nested": [{"Authorization": "***"}, "postgresql://u:***@h/d"],
        "password": None,
    }
    assert given["card_number"] == "4111"
