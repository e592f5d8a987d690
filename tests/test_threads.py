"""Threads for `def` handlers: interrupted where Python allows, let go of where it does not."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any, NoReturn

import pytest

from tests.facts import eventually, until
from worker.threads import Abandoned, Interrupted, Threads, _Call


@pytest.fixture
async def threads() -> AsyncIterator[Threads]:
    await until(lambda: not ours())  # of other tests, that were abandoned
    made = Threads()
    yield made
    made.close()
    await until(lambda: not ours())


def ours() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("handler-")]


def raising(error: BaseException) -> Callable[[], NoReturn]:
    def call() -> NoReturn:
        raise error

    return call


async def test_a_call_gives_its_result(threads: Threads) -> None:
    assert await threads.run(lambda: 6 * 7, 1) == 42


async def test_it_runs_on_a_daemon_thread(threads: Threads) -> None:
    thread = await threads.run(threading.current_thread, 1)
    assert thread.daemon
    assert thread is not threading.current_thread()


@pytest.mark.parametrize(
    "error",
    [
        ValueError("no"),
        SystemExit(3),
        KeyboardInterrupt(),
        asyncio.CancelledError(),
        MemoryError(),
    ],
)
async def test_whatever_it_raises_comes_out(threads: Threads, error: BaseException) -> None:
    with pytest.raises(type(error)) as raised:
        await threads.run(raising(error), 1)
    assert raised.value is error or isinstance(error, asyncio.CancelledError)
    assert await threads.run(lambda: "goes on", 1) == "goes on"
    assert len(ours()) == 1


async def test_sys_exit_ends_no_thread(threads: Threads) -> None:
    with pytest.raises(SystemExit):
        await threads.run(sys.exit, 1)
    assert len(ours()) == 1


@pytest.mark.parametrize("error", [StopIteration(1), GeneratorExit("x")])
async def test_what_no_future_carries_comes_as_something_else(
    threads: Threads, error: BaseException
) -> None:
    with pytest.raises(RuntimeError) as raised:
        await threads.run(raising(error), 1)
    assert str(raised.value) == f"the handler raised {type(error).__name__}"
    assert raised.value.__cause__ is error


async def test_many_calls_share_few_threads(threads: Threads) -> None:
    for _ in range(200):
        await threads.run(lambda: None, 1)
    assert len(ours()) == 1
    at_once = await asyncio.gather(*(threads.run(lambda n=n: n, 1) for n in range(500)))
    assert at_once == list(range(500))
    assert len(ours()) <= 500
    before = len(ours())
    await asyncio.gather(*(threads.run(lambda: None, 1) for _ in range(100)))
    assert len(ours()) == before


async def cancelled(
    threads: Threads,
    call: Callable[[], Any],
    begun: threading.Event,
    *,
    patience: float = 10.0,
    notice: float = 0.0,
) -> Any:
    """Runs `call`, cancels it once it has begun; what came of it."""
    task = asyncio.create_task(threads.run(call, patience, notice))
    await until(begun.is_set)
    task.cancel()
    return (await asyncio.gather(task, return_exceptions=True))[0]


def spin(until: threading.Event | None = None) -> None:
    """Called inside of `try`: the jump back of a loop that stands there itself is not always seen
    as part of it, and that is where newer Pythons look for an interrupt."""
    while until is None or not until.is_set():
        sum(range(100))


async def test_a_spinning_call_is_interrupted(threads: Threads) -> None:
    begun, ended = threading.Event(), threading.Event()

    def spins() -> None:
        begun.set()
        try:
            spin()
        finally:
            ended.set()

    assert isinstance(await cancelled(threads, spins, begun), Interrupted)
    assert ended.is_set()
    assert await threads.run(lambda: 1, 1) == 1
    assert len(ours()) == 1, "the thread was used again"


async def test_a_call_may_end_by_itself_when_it_was_given_notice(threads: Threads) -> None:
    begun, asked = threading.Event(), threading.Event()

    def cooperates() -> str:
        begun.set()
        asked.wait()
        return "saved"

    asyncio.get_running_loop().call_later(0.05, asked.set)
    assert await cancelled(threads, cooperates, begun, notice=5) == "saved"


async def test_a_call_may_answer_its_interrupt(threads: Threads) -> None:
    begun = threading.Event()

    def saves() -> str:
        begun.set()
        try:
            spin()
        except Interrupted:
            return "saved"

    assert await cancelled(threads, saves, begun) == "saved"


async def test_except_exception_does_not_swallow_the_interrupt(threads: Threads) -> None:
    begun, seen = threading.Event(), []

    def stubborn() -> None:
        begun.set()
        try:
            spin()
        except Exception:
            seen.append("swallowed")
        except BaseException as error:
            seen.append(type(error))
            raise

    assert isinstance(await cancelled(threads, stubborn, begun), Interrupted)
    assert seen == [Interrupted]


async def test_a_call_into_c_is_abandoned_and_its_thread_comes_back(threads: Threads) -> None:
    begun, release = threading.Event(), threading.Event()

    def stuck() -> None:
        begun.set()
        release.wait()

    assert isinstance(await cancelled(threads, stuck, begun, patience=0.2), Abandoned)
    assert await threads.run(lambda: "on another", 1) == "on another"
    assert len(ours()) == 2
    release.set()
    before = {thread.ident for thread in ours()}
    await until(lambda: len(threads._idle) == 2)
    used = await asyncio.gather(*(threads.run(threading.get_ident, 1) for _ in range(2)))
    assert set(used) <= before


async def test_what_an_abandoned_call_raises_late_troubles_nobody(threads: Threads) -> None:
    begun, release = threading.Event(), threading.Event()
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: told.append(context))

    def stuck() -> None:
        begun.set()
        release.wait()

    assert isinstance(await cancelled(threads, stuck, begun, patience=0.2), Abandoned)
    release.set()  # the interrupt is raised now
    await until(lambda: threads._idle)
    gc.collect()
    assert not told


async def test_a_call_that_swallows_everything_is_abandoned(threads: Threads) -> None:
    begun, release = threading.Event(), threading.Event()

    def stubborn() -> str:
        while True:  # there is no moment in which an interrupt is not swallowed
            try:
                begun.set()
                spin(until=release)
                return "too late"
            except BaseException:
                continue

    assert isinstance(await cancelled(threads, stubborn, begun, patience=0.2), Abandoned)
    release.set()


async def test_an_interrupt_before_the_thread_came_to_the_call() -> None:
    """Cancelled at once: the function must not begin, or it would run to its end unseen."""
    ran = []
    call = _Call(lambda: ran.append(1), asyncio.get_running_loop())
    call.interrupt()
    call.run()
    with pytest.raises(Interrupted):
        await call.future
    assert not ran


async def test_an_interrupt_after_the_call_hits_nobody(threads: Threads) -> None:
    call = _Call(lambda: 1, asyncio.get_running_loop())
    thread = threading.Thread(target=call.run)
    thread.start()
    assert await call.future == 1
    call.interrupt()
    thread.join()


async def test_interrupts_that_race_with_the_end_harm_nobody(threads: Threads) -> None:
    """Whenever the interrupt comes, the caller gets an answer and the thread lives on."""
    for n in range(300):
        task = asyncio.create_task(threads.run(lambda n=n: sum(range(n * 10)), 5))
        for _ in range(n % 7):
            await asyncio.sleep(0)
        task.cancel()
        [answer] = await asyncio.gather(task, return_exceptions=True)
        early = isinstance(answer, asyncio.CancelledError | Interrupted)
        assert early or answer == sum(range(n * 10))
    assert await threads.run(lambda: "fine", 1) == "fine"
    await until(lambda: len(threads._idle) == len(ours()))


def test_a_closed_loop_does_not_trouble_the_thread() -> None:
    eventually(lambda: not ours())
    release, noted = threading.Event(), []
    previous, threading.excepthook = threading.excepthook, noted.append

    async def main() -> None:
        threads = Threads()
        begun = threading.Event()

        def slow() -> None:
            begun.set()
            release.wait()

        assert isinstance(await cancelled(threads, slow, begun, patience=0.2), Abandoned)
        threads.close()

    try:
        asyncio.run(main())
        [left] = ours()
        release.set()
        left.join(15)
        assert not left.is_alive(), "nobody would ever use it again"
        assert not noted
    finally:
        threading.excepthook = previous


async def test_closing_ends_idle_threads_at_once_and_busy_ones_later() -> None:
    threads, release, begun = Threads(), threading.Event(), threading.Event()

    def slow() -> None:
        begun.set()
        release.wait()

    already = set(ours())
    busy = asyncio.create_task(threads.run(slow, 1))
    await until(begun.is_set)
    await threads.run(lambda: None, 1)
    threads.close()
    await until(lambda: len(set(ours()) - already) == 1)
    release.set()
    await busy
    await until(lambda: not set(ours()) - already)


async def test_context_variables_of_the_caller(threads: Threads) -> None:
    """A logger's or tracer's context goes with the call."""
    request: contextvars.ContextVar[str] = contextvars.ContextVar("request")
    request.set("r1")
    assert await threads.run(lambda: request.get("none"), 1) == "r1"
