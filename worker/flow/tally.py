"""What ended runs say of the outside world, gathered for circuit breakers until it is written."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from worker.row import Row
from worker.transition import Transition

Claim = tuple[str, object, int]  # source, key, token


@dataclass(slots=True)
class Count:
    """Runs of one gate. tail: failures since the last success among them. trial: what became of
    the row that tried an open breaker: "success", "failure", or "none" where it said nothing."""

    runs: int = 0
    failed: int = 0
    tail: int = 0
    trial: str | None = None


@dataclass(slots=True)
class Tally:
    counts: dict[int, Count] = field(default_factory=dict)
    trials: dict[Claim, list[int]] = field(default_factory=dict)

    def try_with(self, row: Row, gates: Iterable[int]) -> None:
        """This row tries these open breakers."""
        self.trials[row.source, row.key, row.token] = list(gates)

    def keep_trials(self, held: Iterable[Row]) -> None:
        """Of any other row nothing will be heard any more: somebody else may try."""
        claims = {(row.source, row.key, row.token) for row in held}
        for claim in [claim for claim in self.trials if claim not in claims]:
            for gate in self.trials.pop(claim):
                self.counts.setdefault(gate, Count()).trial = "none"

    def note(self, row: Row, gates: Iterable[int], transition: Transition | None) -> None:
        """A run ended; without a transition its result was refused."""
        verdict = _verdict(transition)
        for gate in self.trials.pop((row.source, row.key, row.token), ()):
            self.counts.setdefault(gate, Count()).trial = verdict
        if verdict == "none":
            return
        for gate in gates:
            count = self.counts.setdefault(gate, Count())
            count.runs += 1
            if verdict == "failure":
                count.failed += 1
                count.tail += 1
            else:
                count.tail = 0

    def take(self) -> dict[int, Count]:
        counts, self.counts = self.counts, {}
        return counts

    def put_back(self, counts: dict[int, Count]) -> None:
        """They could not be written. What came since is later."""
        for gate, count in counts.items():
            later = self.counts.setdefault(gate, Count())
            if later.tail == later.runs:
                later.tail += count.tail
            later.runs += count.runs
            later.failed += count.failed
            later.trial = later.trial or count.trial


def _verdict(transition: Transition | None) -> str:
    """Whether a run speaks for the outside world, or against it, or says nothing of it."""
    if transition is None:
        return "none"
    match transition.verb:
        case "done":
            return "success"
        case "retry" | "dead":
            fault = transition.fault
            ours = fault is not None and fault.type in _OURS
            return "none" if ours else "failure"
        case _:
            return "none"


# Faults that say nothing of the outside: a bad payload, or what the handler itself has ruled.
_OURS = frozenset({"Dead", "AttemptsSpent", "ResultRefused"})
