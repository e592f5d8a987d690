"""The audit that the demo ends with, in words."""

from __future__ import annotations

from collections.abc import Iterator

from worker.demo.figures import Verdict

NAMES = {
    "done": "done",
    "retry": "failed and tried again",
    "crashed": "lost with the killed worker",
    "released": "given back by the stopped one",
    "lost": "refused because they came too late",
    "snooze": "put off",
    "dead": "given up",
    "cancelled": "cancelled",
}


def report(verdict: Verdict) -> str:
    """Lines; the last one says whether every donation was charged exactly once."""
    width = max(len(name) for name, _ in _lines(verdict))
    lines = [f"  {name:<{width}}  {said}" for name, said in _lines(verdict)]
    return "\n".join([f"The audit, after {verdict.seconds:g} s", *lines, "", *_conclusion(verdict)])


def _lines(verdict: Verdict) -> Iterator[tuple[str, str]]:
    attempts = {name: count for name, count in verdict.attempts.items() if name != "lost"}
    yield "rows", f"{verdict.rows_done:,} of {verdict.donations:,} done"
    yield (
        "attempts",
        f"{sum(attempts.values()):,}: "
        + ", ".join(
            f"{verdict.attempts[name]:,} {said}" for name, said in NAMES.items() if name in attempts
        ),
    )
    yield "refused", f"{verdict.attempts.get('lost', 0)} results came too late"
    yield "double_starts", str(verdict.double_starts or "none: no row was ever in two hands")
    faults = ", ".join(f"{count} x {name}" for name, count in verdict.faults.items())
    yield "API", f"{verdict.requests:,} requests, {sum(verdict.faults.values())} failed ({faults})"
    yield (
        "",
        (
            f"{verdict.replays} came again under a key that was known, and charged nothing; "
            f"{verdict.conflicts} with another body"
        ),
    )


def _conclusion(verdict: Verdict) -> Iterator[str]:
    for problem in verdict.problems:
        yield f"NOT TRUE: {problem}"
    yield f"charged exactly once: {verdict.charged_once:,} of {verdict.donations:,}"
