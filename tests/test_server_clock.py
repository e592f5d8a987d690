"""The server's clock as a worker sees it: pure."""

from __future__ import annotations

import pytest

from worker.flow.server_clock import ServerClock

APART = 5000.0  # seconds by which the server's clock is ahead of ours


def test_the_first_answer_is_taken_as_it_comes() -> None:
    assert ServerClock().moment(at=APART + 10.0, asked=9.9, arrived=10.1) == pytest.approx(10.1)


def test_an_answer_that_lay_waiting_was_read_when_it_was_read() -> None:
    clock = ServerClock()
    clock.moment(at=APART + 10.0, asked=9.99, arrived=10.001)
    late = clock.moment(at=APART + 10.5, asked=10.3, arrived=10.8)
    assert late == pytest.approx(10.501, abs=0.001)


def test_a_quicker_answer_is_believed_at_once() -> None:
    clock = ServerClock()
    clock.moment(at=APART + 10.0, asked=9.99, arrived=10.2)
    assert clock.moment(at=APART + 11.0, asked=10.9, arrived=11.001) == pytest.approx(11.001)
    assert clock.moment(at=APART + 12.0, asked=11.9, arrived=12.2) == pytest.approx(
        12.001, abs=0.002
    )


@pytest.mark.parametrize("step", [-30.0, 30.0])
def test_a_clock_that_is_set_is_believed_anew(step: float) -> None:
    clock = ServerClock()
    clock.moment(at=APART + 10.0, asked=9.99, arrived=10.001)
    moments = [
        clock.moment(at=APART + step + now, asked=now - 0.01, arrived=now + 0.002)
        for now in (11.0, 12.0)
    ]
    assert moments == pytest.approx([11.002, 12.002])


def test_clocks_that_drift_apart_are_followed() -> None:
    """The server's loses half a millisecond a second: an old answer is not held to for ever."""
    clock = ServerClock()
    for second in range(1000):
        at = second * (1 - 0.0005)
        moment = clock.moment(at=APART + at, asked=second - 0.01, arrived=second + 0.001)
        assert moment == pytest.approx(second + 0.001, abs=0.0005)


def test_it_is_never_before_the_question_nor_after_the_answer() -> None:
    clock = ServerClock()
    for n, (at, asked, arrived) in enumerate(
        [(0.0, 0.0, 0.1), (5.0, 4.0, 4.5), (5.1, 4.6, 4.7), (5.0, 4.8, 5.2), (9.0, 8.0, 12.0)]
    ):
        assert asked <= clock.moment(at, asked, arrived) <= arrived, n
