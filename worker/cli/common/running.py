"""Runs a worker in this process: log, app, database, signals, event loop, and the way out."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import threading
from typing import TYPE_CHECKING, NamedTuple

from worker.cli.common.application import load_app
from worker.cli.common.banner import banner
from worker.cli.common.collector import while_working
from worker.cli.common.database import database
from worker.cli.common.memory import watch_memory
from worker.cli.common.signals import Signals
from worker.cli.common.terminal import colours, is_terminal
from worker.drain import Budget
from worker.events import EACH_ROW, WorkerStarted
from worker.observers.lean import structlog
from worker.observers.log import LogObserver, configure, format_for
from worker.runtime import Report, Worker

if TYPE_CHECKING:
    from worker.settings import Settings
    from worker.supervise.parent import Parent

LAST_WAIT = 0.5  # seconds that what is left of handlers has to end


class Ended(NamedTuple):
    """What a worker did; whether nothing of its handlers is left in this process."""

    report: Report
    clean: bool


def run_worker(
    settings: Settings, *, drain: Budget | None = None, parent: Parent | None = None
) -> Ended:
    """Until stopped, or with a budget until nothing is due. `leave` is to follow.

    parent: the supervisor, if this is one of several processes.
    """
    sink = configure(
        settings.log_level,
        settings.log_format,
        colours=colours(sys.stderr),
        shared=parent is not None,
    )
    log = structlog.get_logger("duerow")
    if parent is None:  # else the supervisor has told
        for warning in settings.warnings:
            log.warning("settings.warning", about=warning)
    else:
        parent.listen()
    app = load_app(settings.app)
    with database(settings, lambda text: log.info("database.embedded", about=text)) as url:
        worker = Worker(app, settings, url, queues=settings.queues)
        format = format_for(settings.log_format, sys.stderr)
        started = banner(worker, settings, url, text=format == "console")
        if parent is not None and not parent.first and format == "console":
            started = _nothing  # one banner and the supervisor's line are enough for a person
        observer = LogObserver(sink, settings.log_level, format, started=started)
        worker.events.subscribe(observer, observer.ignores)
        Signals(worker, interactive=parent is None and is_terminal(sys.stdin)).install()
        if parent is not None:
            parent.attach(worker.ask, worker.abandon)
            worker.events.subscribe(parent, EACH_ROW)
        if settings.max_rss_mb is not None:
            watch_memory(worker, settings.max_rss_mb)
        return _in_loop(worker, drain)


def _nothing(_: WorkerStarted) -> None: ...


def leave(ended: Ended, code: int) -> int:
    """The exit code; or, where something of a handler could not be ended, the end of the process:
    a task that swallows its cancellation, or a thread that hangs, would keep it from ending."""
    if ended.clean:
        return code
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


def _in_loop(worker: Worker, drain: Budget | None) -> Ended:
    loop = _new_loop()
    asyncio.set_event_loop(loop)
    while_working()
    try:
        report = loop.run_until_complete(worker.run(drain=drain))
    except BaseException:
        _end_tasks(loop)
        raise
    grace_passed = report.code != 0
    if grace_passed or not _end_tasks(loop) or _threads_left():
        return Ended(report, clean=False)
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()
    return Ended(report, clean=True)


def _end_tasks(loop: asyncio.AbstractEventLoop) -> bool:
    """Cancels what is left, and ends the threads of asyncio.to_thread; whether it has ended."""
    left = asyncio.all_tasks(loop)
    for task in left:
        task.cancel()
    left.add(loop.create_task(loop.shutdown_default_executor()))
    loop.run_until_complete(asyncio.wait(left, timeout=LAST_WAIT))
    return not asyncio.all_tasks(loop)


def _threads_left() -> bool:
    """Whether a handler's thread is still busy, or a thread that a handler left behind would keep
    the interpreter from ending. Idle ones of ours have been told to end."""
    for thread in threading.enumerate():
        lasting = not thread.daemon and thread is not threading.main_thread()
        if lasting or thread.name.startswith("handler-"):
            thread.join(LAST_WAIT)
            if thread.is_alive():
                return True
    return False


def _new_loop() -> asyncio.AbstractEventLoop:
    """uvloop's where it is installed, unless DUEROW_UVLOOP=0."""
    if os.environ.get("DUEROW_UVLOOP") != "0":
        with contextlib.suppress(ImportError):
            import uvloop

            loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
            return loop
    return asyncio.new_event_loop()
