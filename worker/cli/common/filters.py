"""Which of many rows: the options that the verbs of jobs and of adopted rows have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

tenant_option = click.option("--tenant")
error_type_option = click.option(
    "--error-type", metavar="CLASS", help="The last attempt ended with this."
)


def limit_option(default: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """--limit: at the most so many of them."""
    return click.option("--limit", "-n", type=click.IntRange(1), default=default, show_default=True)
