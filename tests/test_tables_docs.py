"""docs/tables.md: everything on it is typed, saved and run, in its order."""

from __future__ import annotations

from pathlib import Path

import psycopg
import pytest

from tests.adoption import Project
from tests.pages import Shell, blocks, commands
from worker.cli.tables import command as verbs

PAGE = "docs/tables.md"


@pytest.mark.process
def test_the_page_is_true(tmp_path: Path, db_url: str) -> None:
    project = Project(tmp_path, db_url)
    shell = Shell(tmp_path, DATABASE_URL=db_url, PROJECT_URL=project.url)
    typed = 0
    for block in blocks(PAGE, "console", "python", "sql"):
        match block.language:
            case "sql":
                with psycopg.connect(db_url, autocommit=True) as connection:
                    connection.execute(block.text.encode())
            case "python" if block.file:
                shell.save(block)
            case "console":
                for command in commands(block):
                    shell.type(command)
                    typed += 1
    assert typed >= 10


def test_every_option_is_on_the_page() -> None:
    text = (Path(__file__).parent.parent / PAGE).read_text()
    for name, verb in verbs.commands.items():
        assert f"worker tables {name}" in text
        for parameter in verb.params:
            option = parameter.opts[0]
            if option.startswith("--") and option not in ("--json", "--database-url"):
                assert option in text, f"tables {name} {option}"
