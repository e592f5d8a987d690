"""Jobs as columns: checked, written, and cut into what one statement takes.

Nearly every batch has one kind, one queue and one priority. So a column is judged by its distinct
values, and one that says the same for all jobs travels as an array of one.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from operator import attrgetter
from typing import Any, NamedTuple, NoReturn, TypeAlias

from worker.errors import DuerowError, PayloadInvalid, UsageError
from worker.job import Job
from worker.jsonb import Fault, Unwritable, fault_of, suspects, text_fault, write
from worker.outcome import storable

Encode: TypeAlias = Callable[[Job], str | bytes]
Key: TypeAlias = tuple[str, str | None, bool]  # kind, unique key, whether for a period

CHUNK_ROWS = 20_000
CHUNK_BYTES = 32 * 1024 * 1024

NAME_LIMIT = 200  # characters of a kind, a queue, a tenant: they stand in indexes
KEY_LIMIT = 1_500  # bytes of a unique key: with its kind it must fit an index entry (2,704)
SECONDS_LIMIT = 10 * 365 * 86_400

# In the order of the parameters of sql/enqueue/plain.sql, and of unique.sql.
PLAIN = ("kind", "queue", "priority", "due_at", "delay", "tenant", "max_attempts", "trace")
KEYED = (*PLAIN, "unique_key", "unique_for")


class Batch:
    """Jobs that can be enqueued. Raises UsageError or PayloadInvalid, naming one that cannot.

    encode: writes the args of one job as JSON. limit: bytes that they may take.
    """

    def __init__(self, jobs: Sequence[Job], encode: Encode | None, limit: int) -> None:
        self._jobs = jobs
        if set(map(type, jobs)) != {Job}:
            self._check_types()
        self._columns = {name: self._column(name) if jobs else [] for name in KEYED}
        self._check_pairs()
        self._texts = self._written(encode, limit)

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def keyed(self) -> bool:
        """Whether any job has a unique key."""
        return bool(self._columns["unique_key"])

    def keys(self) -> Iterator[Key]:
        """What each job asks to be the only one with."""
        for job in self._jobs:
            yield job.kind, job.unique_key, job.unique_for is not None

    def chunks(self, rows: Sequence[int]) -> list[Sequence[int]]:
        """Cuts `rows`, indexes of jobs, into what one statement takes."""
        if not rows:
            return []
        if len(rows) <= CHUNK_ROWS and sum(map(len, self._texts)) <= CHUNK_BYTES:
            return [rows]
        found, start, size = [], 0, 0
        for at, i in enumerate(rows):
            size += len(self._texts[i])
            if at - start >= CHUNK_ROWS or (size > CHUNK_BYTES and at > start):
                found.append(rows[start:at])
                start, size = at, len(self._texts[i])
        return [*found, rows[start:]]

    def params(self, rows: Sequence[int], names: tuple[str, ...]) -> list[Any]:
        """What a statement takes for these jobs: their args, one a line, then the columns."""
        columns = [self._columns[name] for name in names]
        if isinstance(rows, range):
            part = slice(rows.start, rows.stop)
            picked = [c if len(c) < 2 else c[part] for c in columns]
            return [b"\n".join(self._texts[part]).decode(), *picked]
        picked = [c if len(c) < 2 else [c[i] for i in rows] for c in columns]
        return [b"\n".join([self._texts[i] for i in rows]).decode(), *picked]

    def _column(self, name: str) -> list[Any]:
        """[] if no job says anything, [value] if all say the same, else a value or None each."""
        column = _COLUMNS[name]
        values = list(map(column.get, self._jobs))
        uniform = values.count(values[0]) == len(values)
        if any(map(column.judge, values[:1] if uniform else _distinct(values))):
            i, fault = next((i, f) for i, f in enumerate(map(column.judge, values)) if f)
            self._refuse(i, UsageError, name, fault)
        if uniform:
            return [] if values[0] is None else column.plain(values[:1])
        return column.plain(values)

    def _check_types(self) -> None:
        for i, job in enumerate(self._jobs):
            if not isinstance(job, Job):
                fault = Fault(f"is a {type(job).__name__}, not a Job", _TAKES_JOBS)
                self._refuse(i, UsageError, "it", fault)

    def _check_pairs(self) -> None:
        column = self._columns
        if column["due_at"] and column["delay"]:
            for i, job in enumerate(self._jobs):
                if job.due_at is not None and job.delay is not None:
                    fault = Fault("both say when to run", "give one of them")
                    self._refuse(i, UsageError, "due_at and delay", fault)
        if column["unique_for"] and len(column["unique_key"]) != 1:
            for i, job in enumerate(self._jobs):
                if job.unique_for is not None and job.unique_key is None:
                    fault = Fault("says how long, but there is no unique_key", "give a unique_key")
                    self._refuse(i, UsageError, "unique_for", fault)

    def _written(self, encode: Encode | None, limit: int) -> list[bytes]:
        texts: list[bytes] = []
        try:
            for job in self._jobs:
                text = write(job.args) if encode is None else _one_line(encode(job))
                texts.append(text)
        except Unwritable as error:
            self._refuse(len(texts), PayloadInvalid, "args:", error.fault)
        for i in suspects(texts, limit):
            if (fault := fault_of(texts[i], limit)) is not None:
                self._refuse(i, PayloadInvalid, "args:", fault)
        return texts

    def _refuse(self, i: int, error: type[DuerowError], part: str, fault: Fault) -> NoReturn:
        kind = getattr(self._jobs[i], "kind", None)
        named = f"of kind {storable(kind, 80)!r}" if isinstance(kind, str) else "of no kind"
        which = f"job {i} of {len(self):,}, {named}," if len(self) > 1 else f"a job {named}"
        raise error(
            f"{which} cannot be enqueued", why=f"{part} {fault.why}", hint=fault.hint
        ) from None


_TAKES_JOBS = 'pass Job("kind", {"argument": 1}), or what a handler\'s .job() gives'


def _distinct(values: list[Any]) -> list[Any]:
    try:
        return list(set(values))
    except TypeError:  # a list or a dict, where text or a number should be
        return values


def _one_line(text: str | bytes) -> bytes:
    """A line break can only stand between the tokens of JSON, where a blank does as well."""
    try:
        written = text.encode() if isinstance(text, str) else text
    except UnicodeEncodeError:
        raise Unwritable(Fault("they hold half a surrogate pair, which is no character")) from None
    return written.replace(b"\n", b" ")


# -- what a column may hold, and how it travels -------------------------------------------------

Judge: TypeAlias = Callable[[Any], Fault | None]


def _name(value: Any) -> Fault | None:
    if value is None or value == "":
        return Fault("is missing" if value is None else "is empty", "name it")
    return _tenant(value)


def _tenant(value: Any) -> Fault | None:
    if value == "":
        return Fault("is empty", "name it, or leave it out")
    fault = _text(value)
    if fault is None and value is not None and len(value) > NAME_LIMIT:
        return Fault(f"has {len(value):,} characters, over the limit of {NAME_LIMIT}", "shorten it")
    return fault


def _key(value: Any) -> Fault | None:
    if value == "":
        return Fault("is empty: all such jobs would be one", "leave it out, or fill it")
    fault = _text(value)
    if fault is None and value is not None and len(value) > KEY_LIMIT // 4:
        size = len(value.encode())
        if size > KEY_LIMIT:
            return Fault(f"has {size:,} bytes, over the limit of {KEY_LIMIT:,}", "pass its hash")
    return fault


def _text(value: Any) -> Fault | None:
    if value is None:
        return None
    if not isinstance(value, str):
        return Fault(f"is of type {type(value).__name__}, not text", "pass a str")
    return text_fault(value)


def _integer(low: int, high: int, *, required: bool) -> Judge:
    def judge(value: Any) -> Fault | None:
        if value is None and not required:
            return None
        if not isinstance(value, int):
            return Fault(f"is of type {type(value).__name__}, not a whole number", "pass an int")
        if not low <= value <= high:
            return Fault(f"is {value}, not between {low:,} and {high:,}")
        return None

    return judge


def _moment(value: Any) -> Fault | None:
    if value is None:
        return None
    if not isinstance(value, dt.datetime):
        return Fault(f"is of type {type(value).__name__}, not a datetime", "pass a datetime")
    if value.utcoffset() is None:
        return Fault(
            f"is {value.isoformat()}, which has no time zone",
            "datetime.now(UTC), or .replace(tzinfo=...)",
        )
    if not 1 < value.year < 9999:
        return Fault(f"is in the year {value.year}")
    return None


def _seconds(low: float, bound: str) -> Judge:
    def judge(value: Any) -> Fault | None:
        if value is None:
            return None
        if isinstance(value, dt.timedelta):
            value = value.total_seconds()
        if not isinstance(value, int | float):
            return Fault(
                f"is of type {type(value).__name__}, not seconds", "pass a number or a timedelta"
            )
        if not low <= value < SECONDS_LIMIT:
            return Fault(f"is {value} s, not between {bound} and ten years")
        return None

    return judge


def _texts(values: list[Any]) -> list[Any]:
    """Subclasses of str as what they hold: a driver might send the name of an enum's member."""
    if set(map(type, values)) <= {str, type(None)}:
        return values
    return [None if v is None else str.__str__(v) for v in values]


def _integers(values: list[Any]) -> list[Any]:
    if set(map(type, values)) <= {int, type(None)}:
        return values
    return [None if v is None else int(v) for v in values]


def _floats(values: list[Any]) -> list[Any]:
    return [
        v.total_seconds() if isinstance(v, dt.timedelta) else v if v is None else float(v)
        for v in values
    ]


def _same(values: list[Any]) -> list[Any]:
    return values


class _Column(NamedTuple):
    get: Callable[[Any], Any]
    judge: Judge
    plain: Callable[[list[Any]], list[Any]]


_COLUMNS = {
    name: _Column(attrgetter(name), judge, plain)
    for name, judge, plain in (
        ("kind", _name, _texts),
        ("queue", _name, _texts),
        ("priority", _integer(-(2**15), 2**15 - 1, required=True), _integers),
        ("due_at", _moment, _same),
        ("delay", _seconds(0, "0 s"), _floats),
        ("tenant", _tenant, _texts),
        ("max_attempts", _integer(1, 2**31 - 1, required=False), _integers),
        ("trace", _text, _texts),
        ("unique_key", _key, _texts),
        ("unique_for", _seconds(0.001, "0.001 s"), _floats),
    )
}
