"""Running Python as another account, even where root's own Python is out of its reach."""

from __future__ import annotations

import functools
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

NEEDED = ("worker", "psycopg", "psycopg_binary", "psycopg_binary.libs", "typing_extensions.py")


def runs_as(account: str) -> tuple[list[str], dict[str, Any]]:
    """A Python command and the Popen arguments that run it as `account`, with our imports."""
    entry = pwd.getpwnam(account)
    if entry.pw_uid == os.geteuid():
        return [sys.executable], {}
    arguments = {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": [], "cwd": "/"}
    command, path = _reachable_python(entry.pw_uid, entry.pw_gid)
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    return command, {**arguments, "env": env}


@functools.cache
def _reachable_python(uid: int, gid: int) -> tuple[list[str], str]:
    """The first that imports what is needed: ours, the machine's, a copy of ours."""
    ours = os.pathsep.join(path for path in sys.path if path)
    machines = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    for command, path in (([sys.executable], ours), ([machines], ours)):
        if _works(command, path, uid, gid):
            return command, path
    command, path = _copy_of_python()
    assert _works(command, path, uid, gid), "no Python that another account can run"
    return command, path


def _works(command: list[str], path: str, uid: int, gid: int) -> bool:
    try:
        test = subprocess.run(
            [*command, "-c", "import worker.embedded"],
            env={"PYTHONPATH": path},
            cwd="/",
            user=uid,
            group=gid,
            extra_groups=[],
            capture_output=True,
            check=False,
        )
    except OSError:
        return False
    return test.returncode == 0


def _copy_of_python() -> tuple[list[str], str]:
    """The interpreter, its library and what we import, in a directory that all may read."""
    copy = Path(tempfile.mkdtemp(prefix="duerow-python-"))
    copy.chmod(0o755)
    skipped = shutil.ignore_patterns("site-packages", "test", "idlelib", "tkinter", "__pycache__")
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copytree(sys.base_prefix, copy / "base", ignore=skipped, symlinks=True)
    for entry in sys.path:
        for needed in NEEDED:
            found, target = Path(entry) / needed, copy / "lib" / needed
            if found.is_dir() and not target.exists():
                shutil.copytree(found, target)
            elif found.is_file() and not target.exists():
                target.parent.mkdir(exist_ok=True)
                shutil.copy(found, target)
    # Where Python is a shared library it looks for that in the place that it was installed in.
    libraries = f"LD_LIBRARY_PATH={copy / 'base' / 'lib'}"
    return ["/usr/bin/env", libraries, str(copy / "base" / "bin" / name)], str(copy / "lib")
