"""`worker init`: the files of a project to begin with."""

from __future__ import annotations

from pathlib import Path

import click

from worker.cli.common.command import command as verb
from worker.cli.common.terminal import say
from worker.errors import UsageError

APP = '''\
"""The jobs of this project: `worker run` runs them."""

from worker import App, Context

app = App()


@app.handler
async def hello(name: str, context: Context) -> None:
    """Runs once for each job of kind `hello`; what it raises is tried again later."""
    context.log.info("hello", name=name)
'''
PROCFILE = """\
release: worker db migrate
worker: worker run
"""
NEXT = """\
next:
  worker enqueue hello '{"name": "world"}'
  worker run"""


@verb("init")
def command() -> None:
    """Write a small app.py and a Procfile here. Nothing that exists is touched."""
    app, procfile = Path("app.py"), Path("Procfile")
    if app.exists():
        raise UsageError(
            "app.py exists already, and is left as it is",
            why="init begins a project, it changes none",
            hint="put `app = App()` and a handler into a module of yours, then: "
            "worker run --app module:app",
        )
    app.write_text(APP, "utf-8")
    click.echo(app)
    if procfile.exists():
        lines = "".join(f"\n  {line}" for line in PROCFILE.splitlines())
        say(f"Procfile exists already, and is left as it is; it needs:{lines}")
    else:
        procfile.write_text(PROCFILE, "utf-8")
        click.echo(procfile)
    say(NEXT)
