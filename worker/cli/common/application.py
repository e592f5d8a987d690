"""Finds the App: the one that is named, or the only one it could be.

Named by --app, DUEROW_APP or `app` in [tool.duerow], as `module:name`. Without a name it is the
`app` of the first of app.py, jobs.py and worker_app.py in the working directory that imports
`worker`; a file that does not is never run.

The working directory is appended to sys.path, so that a file there can never hide a library.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from worker.errors import AppImportError, DuerowError

if TYPE_CHECKING:
    from worker.app import App

CANDIDATES = ("app", "jobs", "worker_app")
_IMPORTS_US = re.compile(r"^\s*(from\s+worker[\s.]|import\s+worker\b)", re.MULTILINE)
_OURS = Path(__file__).resolve().parents[2]


def load_app(name: str | None) -> App:
    """The App called `module:attribute`, or the one found. Raises AppImportError."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    module_name, _, attribute = (name or _found()).partition(":")
    return _app_of(_import(module_name), attribute)


def find_app() -> str | None:
    """`module:app` of the App in the working directory, by the look of its file; or None."""
    for name in CANDIDATES:
        for path in (Path(f"{name}.py"), Path(name, "__init__.py")):
            if path.is_file() and _IMPORTS_US.search(path.read_text("utf-8", "replace")):
                return f"{name}:app"
    return None


def _found() -> str:
    if (name := find_app()) is not None:
        return name
    if _hidden_file() is not None:
        raise _hidden()
    files = ", ".join(f"{candidate}.py" for candidate in CANDIDATES)
    raise AppImportError(
        "no app to run is named",
        why=f"there is no --app, DUEROW_APP or [tool.duerow] app, and none of {files} "
        f"in {Path.cwd()} imports `worker`",
        hint="worker run --app module:app   (or `worker init` for a small one to begin with)",
    )


def _import(name: str) -> ModuleType:
    if name.partition(".")[0] == "worker":
        raise _hidden()
    try:
        return importlib.import_module(name)
    except DuerowError:
        raise
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise _no_module(name, error.name) from error
        raise _broken(name, error) from error
    except (Exception, SystemExit) as error:
        raise _broken(name, error) from error


def _app_of(module: ModuleType, attribute: str) -> App:
    from worker.app import App

    found: object = module
    for part in attribute.split("."):
        found = getattr(found, part, None)
    if isinstance(found, App):
        return found
    name = f"{module.__name__}:{attribute}"
    apps = [key for key, value in vars(module).items() if isinstance(value, App)]
    what = "is not there" if found is None else f"is of type {type(found).__name__}, no App"
    if apps:
        holds = ", ".join(f"{module.__name__}:{app}" for app in apps)
        hint = f"worker run --app {module.__name__}:{apps[0]}"
    else:
        holds, hint = "none", f"in {module.__name__}: from worker import App; app = App()"
    raise AppImportError(f"{name} {what}", why=f"App objects in it: {holds}", hint=hint)


def _no_module(name: str, missing: str) -> AppImportError:
    return AppImportError(
        f"there is no module {missing!r} to load the app {name!r} from",
        why=f"it is neither in {Path.cwd()} nor installed in {sys.prefix}",
        hint="run from the project's directory, or correct --app module:name",
    )


def _broken(name: str, error: BaseException) -> AppImportError:
    hint = f"python -c 'import {name}'"
    if isinstance(error, ImportError) and (hidden := _hidden_file()) is not None:
        hint = f"rename {hidden.name}: the name `worker` is Duerow's own package"
    return AppImportError(
        f"the app's module {name!r} cannot be imported",
        why=f"{type(error).__name__}: {error}{_place(error)}",
        hint=hint,
    )


def _place(error: BaseException) -> str:
    """Where in the user's own files it happened."""
    if isinstance(error, SyntaxError):
        return ""  # its text says so
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if _is_users(frame.filename):
            line = f": {frame.line}" if frame.line else ""
            return f" ({_short(frame.filename)}, line {frame.lineno}{line})"
    return ""


def _is_users(filename: str) -> bool:
    """Neither ours, nor the library's, nor installed, nor frozen into the interpreter."""
    if filename.startswith("<"):
        return False
    path = Path(filename).resolve()
    installed = "site-packages" in path.parts or "dist-packages" in path.parts
    library = Path(importlib.__file__ or "").resolve().parents[1]
    return not (installed or path.is_relative_to(_OURS) or path.is_relative_to(library))


def _short(filename: str) -> str:
    path = Path(filename).resolve()
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def _hidden_file() -> Path | None:
    """A `worker` of the user's own in the working directory, which ours hides."""
    for path in (Path("worker.py"), Path("worker/__init__.py")):
        if path.is_file() and not path.resolve().is_relative_to(_OURS):
            return path.resolve()
    return None


def _hidden() -> AppImportError:
    path = _hidden_file()
    return AppImportError(
        "the app's module cannot be called `worker`",
        why="that is the name of Duerow's own package, which is imported instead of "
        f"{path.name if path and path.name != '__init__.py' else 'yours'}",
        hint="mv worker.py app.py, and: worker run --app app:app",
    )
