"""Numbers as they are written in settings."""

from __future__ import annotations

import pytest

from worker.errors import SettingsError
from worker.settings import Settings
from worker.varying import Span, Steps, most_of


@pytest.mark.parametrize(
    ("text", "value", "most"),
    [
        ("10", 10, 10),
        (10, 10, 10),
        ("2-40", Span(2, 40), 40),
        (" 2 - 40 ", Span(2, 40), 40),
        ("5-5", Span(5, 5), 5),
        ("3,10:5,51:7,101:10", Steps(((0, 3), (10, 5), (51, 7), (101, 10))), 10),
        ("10, 100:2", Steps(((0, 10), (100, 2))), 10),
    ],
)
def test_a_concurrency(text: object, value: object, most: int) -> None:
    settings = Settings.load(concurrency=text)
    assert settings.concurrency == value
    assert settings.slots == most == most_of(settings.concurrency)
    assert Settings.load(concurrency=str(settings.concurrency)).concurrency == value


def test_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUEROW_CONCURRENCY", "2-40")
    monkeypatch.setenv("DUEROW_CLAIM_BATCH", "20,51:40")
    settings = Settings.load()
    assert settings.concurrency == Span(2, 40)
    assert settings.claim_batch == Steps(((0, 20), (51, 40)))


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("concurrency", "40-2", "write 2-40"),
        ("concurrency", "0-5", "greater than or equal to 1"),
        ("concurrency", "1-20000", "less than or equal to 10000"),
        ("concurrency", "3,51:7,10:5", "each step begins at more due rows"),
        ("concurrency", "3,0:5", "each step begins at more due rows"),
        ("concurrency", "3,10:0", "greater than or equal to 1"),
        ("concurrency", "3,10", "should be a valid integer"),
        ("claim_batch", "2-40", "should be a valid integer"),
    ],
)
def test_what_makes_no_sense_is_refused(name: str, text: str, why: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Settings.load(**{name: text})
    assert why in refused.value.why


def test_steps_by_the_number_of_due_rows() -> None:
    steps = Steps(((0, 3), (10, 5), (51, 7), (101, 10)))
    told = {due: steps.at(due) for due in (0, 9, 10, 50, 51, 100, 101, 10_000)}
    assert told == {0: 3, 9: 3, 10: 5, 50: 5, 51: 7, 100: 7, 101: 10, 10_000: 10}
