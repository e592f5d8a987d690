"""Every error that Duerow raises on purpose.

The message of each says what happened, why, and the exact next command. The CLI
prints it as it stands, without a traceback, and exits with the class's `exit_code`.
"""

from __future__ import annotations


def in_words(what: str, why: str = "", hint: str = "") -> str:
    """A message as people read it: a line each for what happened, why, and what to do next."""
    lines = [what]
    if why:
        lines.append(f"  why:  {why}")
    if hint:
        lines.append(f"  next: {hint}")
    return "\n".join(lines)


class DuerowError(Exception):
    """Something went wrong that the reader can act on.

    what: one sentence, what failed.
    why: the cause, as far as it is known (never holds a password or a payload).
    hint: the next command to type, or the next thing to look at.
    """

    exit_code = 1

    def __init__(self, what: str, *, why: str = "", hint: str = "") -> None:
        self.what = what
        self.why = why
        self.hint = hint
        super().__init__(what)

    def __str__(self) -> str:
        return in_words(self.what, self.why, self.hint)


class UsageError(DuerowError):
    """A flag, a setting or an argument makes no sense."""

    exit_code = 2


class SettingsError(UsageError):
    """A setting from a flag, the environment or pyproject.toml is not valid."""


class InvalidURL(SettingsError):
    """The connection URL cannot be understood."""


class DatabaseUnreachable(DuerowError):
    """The database does not answer."""

    exit_code = 3


class EmbeddedPostgresError(DatabaseUnreachable):
    """The embedded Postgres cannot be started."""


class SchemaError(DuerowError):
    """The `worker` schema is missing or older than this version needs."""

    exit_code = 4


class AppImportError(DuerowError):
    """The app module cannot be imported, or holds no `App`."""

    exit_code = 5


class NotFound(DuerowError):
    """No row, queue, worker or query has that name."""

    exit_code = 6


class RegistrationError(DuerowError):
    """A handler cannot be registered as it is written."""

    exit_code = 5


class UnknownKind(DuerowError):
    """No handler is registered for that kind."""

    exit_code = 2


class PayloadInvalid(DuerowError):
    """The arguments do not fit the handler's signature, or exceed the limits."""

    exit_code = 2


class TableUnfit(DuerowError):
    """Rows of that table cannot be claimed as it stands."""

    exit_code = 8


class ProcessesDied(DuerowError):
    """The processes of `worker run --processes` end as soon as they are started."""


class RowLost(DuerowError):
    """The claim on this row is no longer ours: its result must not be written."""
