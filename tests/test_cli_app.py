"""Which App is run, and what is said when it cannot be found or imported."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from worker.cli.common.application import load_app
from worker.errors import AppImportError, DuerowError, RegistrationError

APP = "from worker import App\napp = App()\n\n@app.handler\ndef {kind}(): ...\n"


@pytest.fixture(autouse=True)
def _in_it(here: Path) -> None:
    """Each test in a directory of its own."""


def write(name: str, text: str) -> None:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def kinds(name: str | None) -> list[str]:
    return [handler.kind for handler in load_app(name).registry]


def refused(name: str | None) -> DuerowError:
    with pytest.raises(AppImportError) as caught:
        load_app(name)
    assert caught.value.exit_code == 5
    return caught.value


def test_named_in_a_package() -> None:
    write("shop/__init__.py", "")
    write("shop/tasks.py", APP.format(kind="charge"))
    assert kinds("shop.tasks:app") == ["charge"]


def test_an_attribute_of_an_attribute() -> None:
    write("shop.py", "from worker import App\nclass Holder:\n    app = App()\n")
    assert kinds("shop:Holder.app") == []


@pytest.mark.parametrize("name", ["app.py", "jobs.py", "worker_app.py", "jobs/__init__.py"])
def test_found_by_its_file(name: str) -> None:
    write(name, APP.format(kind="found"))
    assert kinds(None) == ["found"]


def test_a_file_that_does_not_import_worker_is_never_run() -> None:
    write("app.py", "raise SystemExit('somebody else\\'s app.py was run')\n")
    write("jobs.py", APP.format(kind="found"))
    assert kinds(None) == ["found"]


def test_the_directory_comes_after_everything_else() -> None:
    """A file of the user's can hide no library."""
    write("json.py", "raise AssertionError\n")
    write("decimal.py", "raise AssertionError\n")
    write("app.py", APP.format(kind="found"))
    load_app(None)
    assert sys.path[-1] == str(Path.cwd())


def test_nothing_to_find() -> None:
    error = refused(None)
    assert error.what == "no app to run is named"
    assert "none of app.py, jobs.py, worker_app.py" in error.why
    assert error.hint.startswith("worker run --app module:app")


def test_no_such_module() -> None:
    error = refused("shpo.tasks:app")
    assert error.what == "there is no module 'shpo' to load the app 'shpo.tasks' from"
    assert str(Path.cwd()) in error.why


def test_no_such_submodule() -> None:
    write("shop/__init__.py", "")
    assert refused("shop.taks:app").what.startswith("there is no module 'shop.taks'")


def test_a_missing_library_names_the_users_line() -> None:
    write("app.py", "from worker import App\n\nimport no_such_library\n\napp = App()\n")
    error = refused("app:app")
    assert error.what == "the app's module 'app' cannot be imported"
    assert error.why == (
        "ModuleNotFoundError: No module named 'no_such_library' "
        "(app.py, line 3: import no_such_library)"
    )
    assert error.hint == "python -c 'import app'"


def test_an_error_deep_in_a_library_names_the_users_line() -> None:
    write("app.py", "import json\n\nDATA = json.loads('{')\n")
    assert "(app.py, line 3: DATA = json.loads('{'))" in refused("app:app").why


def test_a_syntax_error_says_where() -> None:
    write("app.py", "from worker import App\napp = App(\n")
    why = refused("app:app").why
    assert why.startswith("SyntaxError: '(' was never closed (app.py, line 2)")


def test_a_module_that_exits() -> None:
    write("app.py", "import sys\nsys.exit('bye')\n")
    assert refused("app:app").why == "SystemExit: bye (app.py, line 2: sys.exit('bye'))"


def test_a_handler_that_cannot_be_registered_says_so_itself() -> None:
    write("app.py", APP.format(kind="twice") + "\n@app.handler('twice')\ndef again(): ...\n")
    with pytest.raises(RegistrationError, match="kind 'twice' has two handlers") as caught:
        load_app("app:app")
    assert caught.value.exit_code == 5


def test_no_such_attribute_lists_the_apps() -> None:
    write("shop.py", "from worker import App\njobs = App()\nmail = App()\n")
    error = refused("shop:app")
    assert error.what == "shop:app is not there"
    assert error.why == "App objects in it: shop:jobs, shop:mail"
    assert error.hint == "worker run --app shop:jobs"


def test_an_attribute_that_is_no_app() -> None:
    write("shop.py", "app = 7\n")
    error = refused("shop:app")
    assert error.what == "shop:app is of type int, no App"
    assert error.hint == "in shop: from worker import App; app = App()"


@pytest.mark.parametrize("name", ["worker:app", "worker.tasks:app", None])
def test_a_module_called_worker(name: str | None) -> None:
    write("worker.py", APP.format(kind="hidden"))
    error = refused(name)
    assert error.what == "the app's module cannot be called `worker`"
    assert "worker.py" in error.why
    assert error.hint == "mv worker.py app.py, and: worker run --app app:app"


def test_an_import_from_a_hidden_module_called_worker() -> None:
    write("worker.py", "def charge(): ...\n")
    write("app.py", "from worker import App, charge\n")
    error = refused("app:app")
    assert "cannot import name 'charge' from 'worker'" in error.why
    assert error.hint == "rename worker.py: the name `worker` is Duerow's own package"
