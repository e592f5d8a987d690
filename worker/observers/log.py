"""Logs, on stderr: JSON off a terminal, readable text on one.

Every event of a worker becomes a line under its dotted name. Rows get one line each at INFO, their
start and the claims are DEBUG, their arguments are never logged. As JSON those lines are put
together by hand and written with the others of the same turn of the loop: 1.5 us instead of the 19
that structlog takes for such a line, as much as the whole of a row costs otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import datetime as dt
import json
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any, Literal, TextIO

from worker import events
from worker.events import Event
from worker.observers.lean import structlog
from worker.observers.mask import masked
from worker.row import Row

Format = Literal["auto", "json", "console"]
EventDict = MutableMapping[str, Any]

LEVELS = {
    events.RowsClaimed: logging.DEBUG,
    events.RowStarted: logging.DEBUG,
    events.BatchRan: logging.DEBUG,
    events.ChoreRan: logging.DEBUG,
    events.RowLost: logging.WARNING,
    events.RowSwept: logging.WARNING,
    events.RowAbandoned: logging.WARNING,
    events.ResultRefused: logging.WARNING,
    events.WorkerGone: logging.WARNING,
    events.WorkerFenced: logging.WARNING,
    events.DatabaseLost: logging.WARNING,
    events.KindsUnclaimed: logging.WARNING,
    events.KeyThrottled: logging.WARNING,
    events.BreakerChanged: logging.WARNING,
    events.SourceFailed: logging.WARNING,
    events.ScheduleMissed: logging.WARNING,
    events.ScheduleRetired: logging.WARNING,
    events.ScheduleFailed: logging.ERROR,
    events.SourceCaution: logging.WARNING,
    events.ServiceFailed: logging.ERROR,
}
"""Everything else is INFO; a row that is dead is a WARNING."""


WHOLE = 4096  # bytes that a pipe takes at once or not at all, see PIPE_BUF in pipe(7)


class Sink:
    """Where lines go. Those of one turn of the event loop are written together.

    shared: with other processes; then in pieces that a pipe does not break into each other.
    """

    def __init__(self, stream: TextIO, *, shared: bool = False) -> None:
        self._stream = stream
        self._shared = shared
        self._lines: list[str] = []
        self._lock = threading.Lock()
        self._thread: int | None = None

    @property
    def empty(self) -> bool:
        return not self._lines

    def add(self, line: str) -> None:
        """A line with its newline, to be written at the end of this turn of the running loop. From
        the thread of that loop only."""
        if not self._lines:
            self._flush_soon()
        self._lines.append(line)

    def write(self, line: str) -> None:
        """A line to be written at once, after those that wait. From any thread."""
        if threading.get_ident() == self._thread:
            self.flush()
        self._write(line + "\n")

    def flush(self) -> None:
        lines, self._lines = self._lines, []
        if lines:
            self._write("".join(lines))

    def _flush_soon(self) -> None:
        self._thread = threading.get_ident()
        asyncio.get_running_loop().call_soon(self.flush)

    def _write(self, text: str) -> None:
        with self._lock, contextlib.suppress(OSError, ValueError):  # nobody reads any more
            for part in _pieces(text) if self._shared else (text,):
                self._stream.write(part)
                self._stream.flush()


def _pieces(text: str) -> Iterator[str]:
    """The lines of `text`, which ends with one: whole, as many at a time as a pipe takes at once,
    but at least one."""
    if len(text) <= WHOLE // 4:
        yield text
        return
    piece, size = "", 0
    for line in (f"{line}\n" for line in text.split("\n")[:-1]):
        length = len(line) if line.isascii() else len(line.encode("utf-8", "surrogatepass"))
        if piece and size + length > WHOLE:
            yield piece
            piece, size = "", 0
        piece += line
        size += length
    yield piece


def configure(
    level: str = "INFO",
    format: Format = "auto",
    stream: TextIO | None = None,
    *,
    colours: bool = False,
    shared: bool = False,
) -> Sink:
    """Sets up structlog, and the standard library's logging where nobody else has.

    format: `auto` is `console` on a terminal and `json` elsewhere. stream: default stderr.
    colours: for the console format. shared: other processes write to the same stream.
    """
    stream = sys.stderr if stream is None else stream
    sink = Sink(stream, shared=shared)
    number = logging.getLevelName(level)
    render = _renderers(format_for(format, stream), colours)
    common: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _mask,
    ]
    structlog.configure(
        processors=[*common, *render],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=lambda *_: _SinkLogger(sink),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    if not root.handlers:
        handler = _SinkHandler(sink)
        handler.setFormatter(
            structlog.stdlib.ProcessorFormatter(
                foreign_pre_chain=[*common[:1], structlog.stdlib.add_logger_name, *common[1:]],
                processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
            )
        )
        root.addHandler(handler)
        root.setLevel(number)
    return sink


def format_for(format: Format, stream: TextIO) -> Literal["json", "console"]:
    if format == "auto":
        return "console" if stream.isatty() else "json"
    return format


class _SinkLogger:
    """structlog's lowest level: takes a finished line."""

    def __init__(self, sink: Sink) -> None:
        self.msg = self.log = self.debug = self.info = self.warning = sink.write
        self.warn = self.error = self.critical = self.fatal = self.exception = sink.write


class _SinkHandler(logging.Handler):
    def __init__(self, sink: Sink) -> None:
        super().__init__()
        self._sink = sink

    def emit(self, record: logging.LogRecord) -> None:
        self._sink.write(self.format(record))


def _renderers(format: Literal["json", "console"], colours: bool) -> list[Any]:
    if format == "json":
        return [structlog.processors.format_exc_info, _in_order, _as_json]
    return [
        structlog.dev.ConsoleRenderer(
            colors=colours, exception_formatter=structlog.dev.plain_traceback
        )
    ]


def _mask(_: Any, __: str, event: EventDict) -> EventDict:
    return {key: value if key == "exc_info" else masked(value, key) for key, value in event.items()}


def _in_order(_: Any, __: str, event: EventDict) -> EventDict:
    first = {name: event.pop(name) for name in ("timestamp", "level", "event") if name in event}
    return {**first, **event}


def _as_json(_: Any, __: str, event: EventDict) -> str:
    return _json(event)


_json = json.JSONEncoder(default=str, ensure_ascii=False, separators=(",", ":")).encode


class LogObserver:
    """Turns the events of a worker into log lines.

    started: called with the event of a worker's start instead of logging it plainly.
    """

    def __init__(
        self,
        sink: Sink,
        level: str = "INFO",
        format: Literal["json", "console"] = "json",
        *,
        started: Callable[[events.WorkerStarted], None] | None = None,
    ) -> None:
        self._sink = sink
        self._level = logging.getLevelName(level)
        self._by_hand = format == "json"
        self._started = started
        self.ignores = {kind for kind, level in LEVELS.items() if level < self._level}
        if self._level > logging.WARNING:  # of a row that is dead
            self.ignores.add(events.RowSettled)
        self._log = structlog.get_logger("duerow")
        self._heads: dict[tuple[str, ...], str] = {}
        self._stamp = ""
        self._second = 0

    def __call__(self, event: Event) -> None:
        if type(event) is events.RowSettled:
            self._row_settled(event)
            return
        level = LEVELS.get(type(event), logging.INFO)
        if level < self._level:
            return
        if isinstance(event, events.WorkerStarted) and self._started is not None:
            self._started(event)
            return
        self._log.log(level, event.name, **_fields(event))

    def _row_settled(self, event: events.RowSettled) -> None:
        verb = event.transition.verb
        level = logging.WARNING if verb == "dead" else logging.INFO
        if level < self._level:
            return
        if self._by_hand:
            self._sink.add(self._line(event))
        else:
            self._log.log(level, _name(event), **_settled_fields(event))

    def _line(self, event: events.RowSettled) -> str:
        """What `_log.log` would write, fifty times faster. Nothing in it needs masking."""
        if self._sink.empty:
            self._tick()
        row = event.row
        verb = event.transition.verb
        place = (verb, row.source, row.kind, row.queue)
        head = self._heads.get(place)
        if head is None:
            head = self._heads[place] = _head(event)
        key = row.key
        line = (
            f'{{"timestamp":"{self._stamp}",{head},"key":{key if type(key) is int else _json(key)},'
            f'"attempt":{row.attempt},"worker":{row.owner},'
            f'"duration_ms":{event.seconds * 1000:.1f},"wait_ms":{event.wait * 1000:.0f}'
        )
        if row.trace is not None:
            line += f',"trace_id":{_json(_trace_id(row.trace))}'
        if verb != "done":
            line += "".join(f',"{k}":{_json(v)}' for k, v in _transition_fields(event).items())
        return line + "}\n"

    def _tick(self) -> None:
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second = second
            self._prefix = time.strftime("%Y-%m-%dT%H:%M:%S.", time.gmtime(second))
        self._stamp = f"{self._prefix}{int((now - second) * 1e6):06d}Z"


def _name(event: events.RowSettled) -> str:
    verb = event.transition.verb
    return f"row.{verb}" if verb in ("retry", "dead") else event.name


def _head(event: events.RowSettled) -> str:
    """What is the same for all rows of one kind, queue and outcome."""
    row, verb = event.row, event.transition.verb
    same = {
        "level": "warning" if verb == "dead" else "info",
        "event": _name(event),
        "source": row.source,
        "kind": row.kind,
        "queue": row.queue,
        "outcome": verb,
    }
    return _json(same)[1:-1]


def _row_fields(row: Row) -> dict[str, Any]:
    fields = {
        "source": row.source,
        "key": row.key,
        "kind": row.kind,
        "queue": row.queue,
        "attempt": row.attempt,
        "worker": row.owner,
    }
    return fields | ({"trace_id": _trace_id(row.trace)} if row.trace else {})


def _settled_fields(event: events.RowSettled) -> dict[str, Any]:
    """For a person: with the error's own words, which are not logged off a terminal, as they may
    hold whatever an author put into them."""
    fields = _row_fields(event.row) | {
        "outcome": event.transition.verb,
        "duration_ms": round(event.seconds * 1000, 1),
        "wait_ms": round(event.wait * 1000),
        **_transition_fields(event),
    }
    fault = event.transition.fault
    return fields if fault is None else fields | {"why": fault.message}


def _transition_fields(event: events.RowSettled) -> dict[str, str]:
    transition = event.transition
    fields = {}
    if transition.next_at is not None:
        fields["next_at"] = transition.next_at.isoformat()
    elif transition.delay is not None:
        next_at = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=transition.delay)
        fields["next_at"] = next_at.isoformat(timespec="milliseconds")
    fault = transition.fault
    if fault is not None and transition.verb in ("retry", "dead"):
        fields |= {"error_type": fault.type, "error_fingerprint": fault.fingerprint}
    return fields


def _trace_id(traceparent: str) -> str:
    """The trace's id in a W3C traceparent, 00-<trace id>-<span id>-<flags>."""
    parts = traceparent.split("-")
    return parts[1] if len(parts) >= 3 else traceparent


def _fields(event: Event) -> dict[str, Any]:
    """An event's fields as log keys."""
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(event):
        value = getattr(event, field.name)
        match value:
            case Row():
                fields |= _row_fields(value)
            case BaseException():
                fields |= {"error_type": type(value).__name__, "exc_info": value}
            case dt.datetime():
                fields[field.name] = value.isoformat()
            case _ if field.name in ("seconds", "after", "retry_in"):
                fields[_RENAMED.get(field.name, field.name)] = _milliseconds(value)
            case _ if value is not None:
                fields[field.name] = list(value) if isinstance(value, tuple) else value
    return fields


_RENAMED = {"seconds": "duration_ms", "after": "after_ms", "retry_in": "retry_in_ms"}


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 1)
