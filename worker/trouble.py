"""Which answers of handlers speak for fewer rows at once."""

from __future__ import annotations

from worker.adaptive import Trouble
from worker.answers import HandlerTimeout
from worker.outcome import Answer, Failed, Throttled
from worker.sessions import NoSession

TOO_MANY_CONNECTIONS = "53300"


def trouble_of(answer: Answer) -> Trouble | None:
    """throttled: the outside world asked for less; timeout: it is too slow for us; pool: no
    session or connection was to be had."""
    match answer:
        case Throttled():
            return "throttled"
        case Failed(error=HandlerTimeout()):
            return "timeout"
        case Failed(error=NoSession()):
            return "pool"
        case Failed(error=error) if getattr(error, "sqlstate", None) == TOO_MANY_CONNECTIONS:
            return "pool"
    return None
