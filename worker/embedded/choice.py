"""Which data, which programs and which account make up the embedded server."""

from __future__ import annotations

import contextlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from worker.embedded.account import Account, owner_of, runnable, server_account
from worker.embedded.binaries import Binaries, find_binaries
from worker.embedded.home import Instance, instances, make_instance, usable_home
from worker.errors import EmbeddedPostgresError

log = logging.getLogger("worker.embedded")


@dataclass(frozen=True)
class Choice:
    """Which data, by which programs, under whose account."""

    instance: Instance
    binaries: Binaries
    account: Account


def choose(home: Path, named: Binaries | None = None) -> Choice:
    """Decide, and make the directories.

    Data that is there already decides the version, the newest first, if we have programs for
    it. Programs named by the caller or by DUEROW_PG_BIN come before that: other data stays
    where it is, and the log says so.
    Raises EmbeddedPostgresError when data and programs do not fit, or there are no programs.
    """
    usable = usable_home(home, _account_in(home))
    instance, binaries = _fitting(usable, named)
    account = _account_of(instance)
    make_instance(instance.path)
    return Choice(instance, runnable(binaries, account, instance.path), account)


def _fitting(home: Path, named: Binaries | None) -> tuple[Instance, Binaries]:
    there = instances(home)
    if named is None and "DUEROW_PG_BIN" in os.environ:
        named = find_binaries()
    if named is not None:
        return _instance_for(named, home, there), named
    for instance in there:
        with contextlib.suppress(EmbeddedPostgresError):
            return instance, find_binaries(instance.major)
    if there:
        raise _no_programs_for(there[0])
    preferred = find_binaries()
    return Instance(home / f"postgres-{preferred.major}"), preferred


def _instance_for(named: Binaries, home: Path, there: list[Instance]) -> Instance:
    instance = Instance(home / f"postgres-{named.major}")
    if instance.major not in (None, named.major):
        raise _no_programs_for(instance, f"{named.origin} names Postgres {named.version}")
    if instance.major is None and there:
        log.warning(
            "%s names Postgres %s; the data of Postgres %s stays unused in %s",
            *(named.origin, named.major, there[0].major, there[0].path),
        )
    return instance


def _no_programs_for(instance: Instance, why: str = "") -> EmbeddedPostgresError:
    return EmbeddedPostgresError(
        f"The embedded database in {instance.path} was written by Postgres {instance.major}.",
        why=why or f"there are no programs of Postgres {instance.major} on this machine",
        hint=f"export DUEROW_PG_BIN=/usr/lib/postgresql/{instance.major}/bin   "
        f"(or start afresh: mv {instance.path} {instance.path}.old)",
    )


def _account_in(home: Path) -> Account:
    there = instances(home)
    return _account_of(there[0]) if there else server_account()


def _account_of(instance: Instance) -> Account:
    return owner_of(instance.data) if instance.data.exists() else server_account()
