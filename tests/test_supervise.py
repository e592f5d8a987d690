"""What of `worker run --processes` can be decided without a process."""

from __future__ import annotations

import io
import os
import signal
from pathlib import Path

import pytest

from worker.cores import usable_cores
from worker.errors import SettingsError
from worker.interrupts import Interrupts
from worker.observers.log import WHOLE, Sink
from worker.settings import Settings
from worker.supervise import endings
from worker.supervise.backoff import Backoff


def test_pauses_double_up_to_half_a_minute_and_begin_anew_after_a_long_life() -> None:
    backoff = Backoff()
    wanted = [0.5, 1, 2, 4, 8, 16, 30, 30]
    for most in wanted:
        assert 0.75 * most <= backoff.after(lived=59) <= most
    assert backoff.after(lived=61) <= 0.5
    assert 0.75 <= backoff.after(lived=1) <= 1


def test_a_thousand_deaths_do_not_overflow() -> None:
    backoff = Backoff()
    assert all(backoff.after(lived=0) <= 30 for _ in range(2000))


def test_pauses_of_those_that_died_together_differ() -> None:
    assert len({Backoff().after(lived=0) for _ in range(50)}) > 40


def test_what_each_ctrl_c_means() -> None:
    keyboard = Interrupts()
    presses = [keyboard.press(now) for now in (5.0, 5.5, 5.9, 6.0, 6.1)]
    assert presses == ["stop", None, None, "abandon", "leave"]


@pytest.mark.parametrize(
    ("code", "led", "final"),
    [
        (1, False, True),
        (3, False, True),
        (5, False, True),
        (7, False, True),
        (0, False, False),
        (9, False, False),
        (77, False, False),
        (-9, False, False),
        (2, True, True),
        (4, True, True),
        (5, True, True),
        (8, True, True),
        (1, True, False),
        (3, True, False),
        (-9, True, False),
    ],
)
def test_which_ends_are_final(code: int, led: bool, final: bool) -> None:
    assert endings.is_final(code, led=led) is final


@pytest.mark.parametrize(
    ("codes", "whole"),
    [
        ([0, 0], 0),
        ([0, -signal.SIGTERM], 0),
        ([0, 9, 0], 9),
        ([130, 130], 130),
        ([0, -signal.SIGKILL, 0], 1),
        ([0, 77], 1),
    ],
)
def test_the_exit_code_of_all(codes: list[int], whole: int) -> None:
    code = 0
    for one in codes:
        code = endings.whole(code, one)
    assert code == whole


@pytest.mark.parametrize(
    ("files", "most"),
    [
        ({}, None),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "5000 100000\n"}, 1),
        ({"cpu.max": "120000 100000\n"}, 2),
        ({"cpu.max": "9900000 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "50000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 1),
    ],
)
def test_a_quota_counts_as_the_cores_it_pays_for(
    tmp_path: Path, files: dict[str, str], most: int | None
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    cores = len(os.sched_getaffinity(0))
    assert usable_cores(tmp_path) == (cores if most is None else min(most, cores))


def test_only_the_cores_that_may_be_used_count(tmp_path: Path) -> None:
    mine = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(mine)})
    try:
        assert usable_cores(tmp_path) == 1
    finally:
        os.sched_setaffinity(0, mine)


def test_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings.load().processes == 1
    assert Settings.load(processes="auto").processes == "auto"
    monkeypatch.setenv("DUEROW_PROCESSES", "4")
    assert Settings.load().processes == 4
    assert Settings.load(processes="2").processes == 2
    for bad in ("0", "many", "-1", "1.5"):
        with pytest.raises(SettingsError, match="processes"):
            Settings.load(processes=bad)


def test_switches_are_no_unknown_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUEROW_FORK", "0")
    monkeypatch.setenv("DUEROW_UVLOOP", "0")
    assert Settings.load().warnings == ()


class Pieces(io.StringIO):
    """Keeps what each write was."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[str] = []

    def write(self, text: str) -> int:
        self.written.append(text)
        return len(text)


def test_lines_for_a_shared_pipe_are_written_whole() -> None:
    stream = Pieces()
    lines = ["ä\u2028" * (n % 350) + str(n) for n in range(100)]
    Sink(stream, shared=True).write("\n".join(lines))
    assert "".join(stream.written).split("\n") == [*lines, ""]
    assert all(piece.endswith("\n") for piece in stream.written)
    assert all(len(piece.encode()) <= WHOLE for piece in stream.written)
    assert len(stream.written) < 30


def test_a_line_that_is_too_long_is_written_all_the_same() -> None:
    stream = Pieces()
    Sink(stream, shared=True).write(f"a\n{'x' * 9000}\nb")
    assert stream.written == ["a\n", "x" * 9000 + "\n", "b\n"]
