"""Settings: flag > environment > `[tool.duerow]` of the nearest pyproject.toml > default.

A setting `poll_max` is the flag `--poll-max`, the variable `DUEROW_POLL_MAX` and the key
`poll_max`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    ByteSize,
    Field,
    PlainSerializer,
    PlainValidator,
    PrivateAttr,
    TypeAdapter,
    ValidationError,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from worker.duration import parse_duration
from worker.errors import InvalidURL
from worker.settings.explain import explained
from worker.settings.sources import origin_of, sources_of, warnings_of
from worker.url import DatabaseURL
from worker.varying import Number, Span, Steps, most_of, numbers_of, read_span, read_steps

EMBEDDED = "embedded"
"""Said instead of a URL: the embedded Postgres, whatever DATABASE_URL says."""


def _url(value: object) -> DatabaseURL | None:
    if value is None or value == EMBEDDED:
        return None
    if isinstance(value, DatabaseURL):
        return value
    try:
        return DatabaseURL.parse(str(value))
    except InvalidURL as error:
        lines = (error.what, error.why, error.hint)
        raise ValueError("; ".join(line for line in lines if line)) from None


def _queues(value: object) -> object:
    """`a,b` or a list; `*` alone is every queue that the app's handlers name."""
    items = value.split(",") if isinstance(value, str) else value
    if not isinstance(items, list | tuple):
        return value
    names = tuple(dict.fromkeys(str(item).strip() for item in items))
    return () if names == ("*",) else names


def _or_none(value: object) -> float | None:
    """Seconds, or None for 0 and for the words that mean it."""
    plain = str(value).strip().lower()
    return None if plain in ("none", "off", "never") else parse_duration(plain) or None


def _whole(value: object) -> int:
    """Raises ValueError with pydantic's own words."""
    try:
        return _WHOLE.validate_python(value)
    except ValidationError as error:
        [trouble] = error.errors(include_url=False, include_context=False)
        raise ValueError(trouble["msg"]) from None


def _steps(value: object) -> int | Steps:
    steps = value if isinstance(value, Steps) else read_steps(str(value))
    if steps is None:
        return _whole(value)
    for number in numbers_of(steps):
        _whole(number)
    return steps


def _number(value: object) -> Number:
    span = value if isinstance(value, Span) else read_span(str(value))
    if span is None:
        return _steps(value)
    for number in numbers_of(span):
        _whole(number)
    return span


def _processes(value: object) -> int | Literal["auto"]:
    return "auto" if value == "auto" else _whole(value)


_WHOLE: TypeAdapter[int] = TypeAdapter(Annotated[int, Field(ge=1, le=10_000)])

Seconds = Annotated[float, BeforeValidator(parse_duration), Field(allow_inf_nan=False)]
"""A duration in seconds, read by `parse_duration`."""

URL = Annotated[
    DatabaseURL | None,
    NoDecode,
    PlainValidator(_url),
    PlainSerializer(lambda url: url and str(url), when_used="json"),
]
Queue = Annotated[str, Field(pattern=r"^[^\s,*]{1,100}$")]
Upper = BeforeValidator(lambda value: value.upper() if isinstance(value, str) else value)


class Settings(BaseSettings):
    """What a worker runs with. `Settings.load(**flags)` is the way to get one."""

    model_config = SettingsConfigDict(
        env_prefix="DUEROW_",
        env_nested_delimiter="__",
        env_ignore_empty=True,
        pyproject_toml_table_header=("tool", "duerow"),
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,  # an input may be a password
    )
    _origins: dict[str, str] = PrivateAttr(default_factory=dict)
    _warnings: tuple[str, ...] = PrivateAttr(default=())

    database_url: URL = Field(
        None,
        description="Where the rows are. DATABASE_URL and the PG* variables are read too. "
        "Without any, or with `embedded`, an embedded Postgres is started.",
    )
    direct_url: URL = Field(
        None,
        description="The same database past a connection pooler, for LISTEN and the heartbeat.",
    )
    app: str | None = Field(
        None, pattern=r"^[\w.]+:[\w.]+$", description="Module and name of the App: `jobs:app`."
    )
    queues: Annotated[tuple[Queue, ...], NoDecode, BeforeValidator(_queues)] = Field(
        (),
        description="Queues to claim from, separated by commas; `*` is every queue that the "
        "app's handlers name.",
    )
    concurrency: Annotated[Number, NoDecode, PlainValidator(_number)] = Field(
        10,
        description="Rows that run at the same time; `2-40` goes by the backlog and by throttling, "
        "`3,10:5,51:7` by how many rows are due.",
    )
    processes: Annotated[int | Literal["auto"], PlainValidator(_processes)] = Field(
        1,
        description="Worker processes of `worker run`, under one supervisor; all else holds for "
        "each of them. `auto` is one for each core that may be used.",
    )
    lease: Seconds = Field(
        30.0, gt=0, description="How long a worker may be silent before its rows run elsewhere."
    )
    grace: Seconds = Field(
        25.0,
        description="How long running handlers may go on after SIGTERM. On Railway: its draining "
        "time less 2s.",
    )
    poll_interval: Seconds = Field(
        1.0, gt=0, description="How often to look for rows when nothing wakes the worker."
    )
    poll_max: Seconds = Field(
        10.0, gt=0, description="The longest pause between two looks when idle."
    )
    pool_size: int | None = Field(
        None, ge=1, description="Most sessions handed to handlers; as many as concurrency if none."
    )
    claim_batch: Annotated[int | Steps, NoDecode, PlainValidator(_steps)] = Field(
        500,
        description="Most rows that one claim takes; `20,10:30,51:40` by how many rows are due.",
    )
    timeout: Annotated[float | None, BeforeValidator(_or_none)] = Field(
        600.0, description="How long a handler may run unless it says otherwise; 0 = no end."
    )
    max_crashes: int = Field(
        3, ge=1, description="How often a row may take its worker down before it is dead."
    )
    payload_limit: ByteSize = Field(
        ByteSize(262_144), gt=0, description="Largest arguments of a row, as JSON."
    )
    retention: Seconds = Field(14 * 86_400.0, gt=0, description="How long finished rows are kept.")
    attempts_retention: Seconds = Field(
        30 * 86_400.0, gt=0, description="How long the log of attempts is kept."
    )
    partitions_ahead: int = Field(
        7, ge=1, le=366, description="Days for which partitions are made ahead."
    )
    log_level: Annotated[Literal["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"], Upper] = Field(
        "INFO", description="Least important events to log."
    )
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="How to log; auto is console on a terminal and json elsewhere."
    )
    statement_timeout: Seconds = Field(
        10.0, gt=0, description="The longest that one statement of the worker's own may take."
    )
    connect_timeout: Seconds = Field(
        5.0, gt=0, description="The longest that reaching one server may take."
    )
    max_rss_mb: int | None = Field(
        None, ge=1, description="Memory in MiB at which a worker drains and exits with code 0."
    )
    worker_name: str | None = Field(
        None,
        pattern=r"^[\x21-\x7e]{1,100}$",
        description="Name of this worker in tables and logs; host and process id if none.",
    )
    health: str | None = Field(
        None,
        pattern=r"^\S*:[0-9]{1,5}$",
        description="Where to tell over HTTP how this worker is, as `127.0.0.1:8080`, or `:8080` "
        "for all interfaces: /livez, /readyz, /healthz.",
    )
    listen: bool = Field(
        True, description="Be woken by LISTEN/NOTIFY; without it, rows are found by looking."
    )

    def __init__(self, **flags: Any) -> None:
        super().__init__(**flags)
        sources = sources_of(type(self), flags)
        self._origins = {name: origin_of(name, sources) for name in type(self).model_fields}
        self._warnings = tuple(warnings_of(type(self), self._origins))

    @classmethod
    def load(cls, **flags: Any) -> Self:
        """Settings from all sources; a flag that is None, or an empty tuple, was not given.

        Raises SettingsError that lists every bad value, why, and where it was said.
        """
        given = {name: value for name, value in flags.items() if value is not None and value != ()}
        try:
            return cls(**given)
        except ValidationError as error:
            raise explained(cls, given, error) from None

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings, *sources_of(settings_cls, {})[1:])

    @property
    def slots(self) -> int:
        """The most rows that may run at the same time."""
        return most_of(self.concurrency)

    def origins(self) -> dict[str, str]:
        """For each setting who said it: a flag, a variable, a file, or `default`."""
        return dict(self._origins)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to tell the user at start: variables that mean nothing, notes on the URLs."""
        urls = (("database_url", self.database_url), ("direct_url", self.direct_url))
        notes = (f"{name}: {note}" for name, url in urls if url for note in url.notes)
        return (*self._warnings, *notes)
