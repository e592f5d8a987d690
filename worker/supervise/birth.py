"""How a process comes to be.

By a fork, which shares with the supervisor whatever that has imported: a worker then costs half the
memory. Or as a program of its own, started by the same command: on macOS, whose libraries do not
bear a fork, where something runs threads in the supervisor already, and where DUEROW_FORK=0 asks
for it.
"""

from __future__ import annotations

import gc
import os
import socket
import sys
import threading
from pathlib import Path

from worker.supervise.parent import INHERITED
from worker.supervise.signals import WATCHED


def may_fork() -> bool:
    return sys.platform != "darwin" and os.environ.get("DUEROW_FORK") != "0" and _threads() == 1


def _threads() -> int:
    """Of any language, where that can be told."""
    try:
        return sum(1 for _ in Path("/proc/self/task").iterdir())
    except OSError:
        return threading.active_count()


def fork() -> int:
    """os.fork, so that what is buffered is written once and the collector's marks do not make the
    child copy every page that it looks at."""
    sys.stdout.flush()
    sys.stderr.flush()
    gc.freeze()
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
    return pid


def spawn(number: int, name: str, channel: socket.socket, mask: set[int], *, first: bool) -> int:
    """The command that started this process, once more, in a process group of its own. channel: its
    end. mask: the signals that it is to block."""
    told = f"{number}:{int(first)}:{channel.fileno()}:{name}"
    channel.set_inheritable(True)
    return os.posix_spawn(
        sys.executable,
        [sys.executable, *sys.orig_argv[1:]],
        {**os.environ, INHERITED: told},
        setpgroup=0,
        setsigmask=mask,
        setsigdef=WATCHED,
    )
