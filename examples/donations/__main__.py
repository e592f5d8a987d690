"""python -m examples.donations: every figure that the scenario asks for, beside the original's."""

from __future__ import annotations

from examples.common.crew import LEASE, Crew
from examples.common.show import say, table, title
from examples.common.stage import Stage, program
from examples.donations.scenes import (
    BATCH,
    MEMORY,
    REPLICAS,
    SLOTS,
    Memory,
    Scenes,
    Speed,
    Trouble,
)
from examples.donations.table import Table

DOC = "Charge donations over a payments API that fails, while workers are killed and stopped."
MOST = 15.0  # seconds for a hundred, where the original took 300


def play(stage: Stage) -> bool:
    """Whether all that it shows was true."""
    say(f"{REPLICAS} workers, {SLOTS} slots each; the scenario's clock: {stage.clock}")
    found = Table(stage.connection)
    say(f"adopted by what this prints: {found.create()} --sql")
    with Crew(stage.url, stage.clock, "examples.donations.api") as crew:
        scenes = Scenes(crew, found, stage.clock, stage.url)
        scenes.start()
        problems = show_speed(scenes.speed())
        problems += show_trouble(scenes.trouble())
        problems += show_by_hand(*scenes.by_hand())
        problems += show_memory(scenes.memory())
        crew.stop_all()
    say()
    for problem in problems:
        say(f"NOT TRUE: {problem}")
    if not problems:
        say("all of it is true")
    return not problems


def show_speed(speeds: list[Speed]) -> list[str]:
    title("100 donations, 3 s a charge; seconds")
    table(
        (
            "API fails",
            "original",
            f"first fix, {BATCH} at a time",
            "ideal",
            "here, 95 of 100",
            "all",
        ),
        [(f"{s.errors:.0%}", s.was, s.batches, s.ideal, s.most, s.seconds) for s in speeds],
    )
    first, second = speeds
    say(
        "The original and its first fix are computed without any error; the first stopped at one.\n"
        "Here a donation that fails waits 2 s, then 4 s, beyond its 3 s a try."
    )
    say(
        f"The second row is the same donations a month later: {second.once} of {second.donations}"
        " have been charged\nonce a month, each time under another key."
    )
    slow = [f"100 donations took {s.seconds:.1f} s" for s in speeds[:1] if s.seconds > MOST]
    once = first.once == second.once == second.new_keys == first.donations
    return slow + ([] if once else ["not every donation was charged once a month"])


def show_trouble(found: Trouble) -> list[str]:
    title(f"{found.donations:,} donations: one worker killed (SIGKILL), one stopped (SIGTERM)")
    pay = found.donations - found.declined
    faults = ", ".join(f"{count} x {name}" for name, count in found.faults.items())
    table(
        ("", "original", "first fix", "here"),
        [
            ("after an error", "all stops", "3 more tries", "7 more, by class"),
            ("a process is killed", "all starts over", "a batch is unknown", "taken over"),
            ("charged exactly once", "no", "no", f"{found.once} of {pay}"),
            ("declined cards charged", 0, 0, f"{found.declined_charged} of {found.declined}"),
            ("after transient failures", "none charged", "most", _recovered(found)),
            ("lost answers charged again", "-", f"{found.replays}, random keys", 0),
            ("seconds", "3000", "60", f"{found.seconds:.1f}"),
        ],
    )
    say(
        "The seconds of the original and its first fix are computed, without any error.\n"
        f"Lost answers: {found.replays} times a key came again that the API knew, for nothing."
    )
    say(f"The API failed {sum(found.faults.values())} requests ({faults}).")
    say(
        f"The killed worker held {found.killed_with} rows; they ran elsewhere once its lease of"
        f" {LEASE:g} s (real ones) was over."
    )
    told = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(found.outcomes.items()))
    say(f"On record: {told}; rows in two hands at once: {found.double_starts}.")
    title("What followed an error, by its class; seconds of the scenario")
    table(
        ("error", "attempt", "then", "times", "again after, from", "to"),
        [
            (w.error, w.attempt, w.outcome, w.times, _seconds(w.shortest), _seconds(w.longest))
            for w in found.waits
        ],
    )
    return found.problems


def show_by_hand(declined: int, charged: int) -> list[str]:
    say(
        f"\nThe {declined} donors give another card, and: worker rows retry donations"
        f" --error-type Declined\n{charged} of {declined} are charged exactly once."
    )
    return [] if charged == declined else [f"{declined - charged} were not charged with a new card"]


def show_memory(found: Memory) -> list[str]:
    title(f"{found.donations:,} donations due at once")
    table(
        ("worker", "peak RSS, MB", "allowed, MB"),
        [(n, peak, MEMORY) for n, peak in enumerate(found.peaks, 1)],
    )
    say(
        f"{found.once:,} of {found.donations:,} charged exactly once, {found.per_second:.0f} a"
        " (real) second, all four workers, the API and Postgres on this machine."
    )
    problems = []
    if max(found.peaks) > MEMORY:
        problems.append(f"a worker took {max(found.peaks):.0f} MB")
    if found.once != found.donations:
        problems.append(f"{found.donations - found.once} were not charged exactly once")
    return problems


def _recovered(found: Trouble) -> str:
    rows = found.recovery.rows - found.recovery.declined
    return f"{found.recovery.charged} of {rows} charged"


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f}"


if __name__ == "__main__":
    program("examples.donations", DOC, 0.1, play)
