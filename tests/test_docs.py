"""The pages together: links lead somewhere, the index is whole, every command exists."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from pathlib import Path

import pytest

from tests.commands import unknown
from tests.pages import PAGES, ROOT, blocks, commands

NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
INLINE = re.compile(r"`(worker(?: [^`\n]+)?)`")
FILE = re.compile(r"`((?:sql|worker|tests|alembic|docs|docker)/[\w./]+)`")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
CODE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def prose(name: str) -> str:
    return CODE.sub("", (ROOT / name).read_text("utf-8"))


def anchors(page: Path) -> set[str]:
    """What GitHub calls the headings."""
    titles = HEADING.findall(CODE.sub("", page.read_text("utf-8")))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    for target in LINK.findall(prose(name)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), f"{name}: {target}"
        assert there.is_relative_to(ROOT), f"{name}: {target} leads out of the project"
        assert not anchor or anchor in anchors(there), f"{name}: {target}"


def test_the_map_names_every_module() -> None:
    """Of the folders their names will do."""
    page = (ROOT / "docs/architecture.md").read_text("utf-8")
    there = {path.name for path in (ROOT / "worker").iterdir()}
    modules = {name for name in there if name.endswith(".py") and not name.startswith("_")}
    folders = {f"{path.parent.name}/" for path in (ROOT / "worker").glob("*/__init__.py")}
    assert {name for name in modules | folders if name not in page} == set()


def test_the_index_names_every_page() -> None:
    index = ROOT / "docs" / "README.md"
    named = {(index.parent / target).resolve() for target in LINK.findall(index.read_text("utf-8"))}
    for page in PAGES:
        if page.parent == ROOT / "docs" and page != index:
            assert page in named, page.name


def written_commands() -> list[tuple[str, str]]:
    """(page, command) of each `worker ...` in the prose and in the console blocks."""
    found = []
    for name in NAMES:
        found += [(name, typed) for typed in INLINE.findall(prose(name))]
        for block in blocks(name, "console", "sh"):
            lines = block.text.splitlines() if block.language == "sh" else _typed(block.text)
            found += [(name, line) for line in lines if line.startswith("worker ")]
    return [(name, typed) for name, typed in found if not typed.startswith("worker VERB")]


def _typed(text: str) -> list[str]:
    return re.findall(r"^\$ (.+)$", text.replace("\\\n", ""), re.MULTILINE)


@pytest.mark.parametrize(("name", "typed"), sorted(set(written_commands())))
def test_every_command_exists_with_its_options(name: str, typed: str) -> None:
    words = shlex.split(typed, comments=True)
    stops = (words.index(word) for word in ("|", ">", "&&", ";") if word in words)
    assert unknown(words[: min(stops, default=len(words))]) is None, f"{name}: {typed}"


def test_a_command_that_does_not_exist_is_noticed() -> None:
    assert unknown(["worker", "rum"]) == "rum"
    assert unknown(["worker", "jobs", "erase", "7"]) == "erase"
    assert unknown(["worker", "run", "--concurency", "7"]) == "--concurency"
    assert unknown(["worker", "--vesion"]) == "--vesion"
    assert unknown(["worker", "jobs", "retry", "--kind=charge", "--yes"]) is None


@pytest.mark.parametrize("name", NAMES)
def test_extras_exist(name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    named = re.findall(r"duerow\[([\w,]+)\]", (ROOT / name).read_text("utf-8"))
    for extra in ",".join(named).split(",") if named else ():
        assert extra in project["optional-dependencies"]


@pytest.mark.parametrize("name", NAMES)
def test_python_snippets_are_python(name: str) -> None:
    for block in blocks(name, "python", "py"):
        compile(block.text, str(block), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST)


@pytest.mark.parametrize("name", NAMES)
def test_console_blocks_can_be_read(name: str) -> None:
    for block in blocks(name, "console"):
        assert commands(block), f"{block}: nothing is typed"


@pytest.mark.parametrize("name", NAMES)
def test_files_that_a_page_names_are_there(name: str) -> None:
    for path in FILE.findall(prose(name)):
        assert (ROOT / path).exists(), f"{name}: {path}"
