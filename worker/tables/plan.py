"""What is to be done to a table: only what is missing, in an order that may stop anywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from worker.errors import UsageError
from worker.tables import statements
from worker.tables.bookkeeping import DUE_TYPES, NAMES, Column, bookkeeping
from worker.tables.description import Description, Index, fillfactor_of
from worker.tables.gaps import (
    Deparsed,
    add_command,
    index_state,
    missing_columns,
    our_index,
    registered,
    registration_of,
    spec_of,
)
from worker.tables.names import quoted
from worker.tables.spec import TableSpec, Which
from worker.tables.statements import IndexBody, Target, interim_name
from worker.tables.step import Action, Plan, Step, way_back

INDEXES: tuple[Which, ...] = ("due", "tenant")

Listing = Callable[[str], Iterable[tuple[bool, str]]]
"""Runs a query on the database that is looked at; see step.Action.each."""


@dataclass(frozen=True, slots=True)
class Planner:
    """lock_timeout: seconds that one try for a strong lock may take."""

    spec: TableSpec
    table: Description
    listing: Listing
    lock_timeout: float = 1.0

    def to_add(self, deparsed: Deparsed | None, fillfactor: int | None = None) -> Plan:
        """Nothing if the table has all that the spec asks for. Raises UsageError where the table
        was adopted under another name.

        deparsed: how this server tells the index that is wanted; see gaps.index_state.
        """
        self._refuse_second_name()
        steps = (
            *self._missing_columns(),
            *self._other_fillfactor(fillfactor),
            *(step for which in self.spec.indexes for step in self._unfit_index(deparsed, which)),
            *([] if self.spec.by_tenant else self._idle_index()),
            *self._leftovers(),
            *([] if registered(self.spec, self.table) else [self._registration()]),
        )
        return Plan(steps, self._patiently())

    def to_remove(self) -> Plan:
        """Takes out what is there of what was added; holds and attempt counts go with it."""
        there = [column for column in self._bookkeeping() if column.name in self.table.columns]
        steps = []
        if there:
            steps.append(self._columns(there))
        for which in INDEXES:
            target = self._target_of(which)
            if (index := self.table.index(target.index_name)) is not None:
                body = statements.body_of(self.spec, which) if which in self.spec.indexes else None
                body = body or _body_there(index) or statements.body_of(self.spec)
                steps.append(self._index("build", target, body))
        if registration_of(self.spec, self.table) is not None:
            steps.append(self._registration())
        return Plan(way_back(steps), self._patiently())

    @property
    def _target(self) -> Target:
        return self._target_of("due")

    def _target_of(self, which: Which) -> Target:
        table = self.table
        index = our_index(self.spec, table, which)
        return Target(table.schema, table.table, table.written, index, which)

    def _patiently(self) -> str:
        there = [self.table.index(self._target_of(which).index_name) for which in INDEXES]
        predicates = [index and index.predicate for index in there]
        content = f"{self.spec.where} {predicates} {self.table.written}"
        return statements.patiently(self._target, self.lock_timeout, content)

    def _refuse_second_name(self) -> None:
        others = [r.name for r in self.table.registrations if r.name != self.spec.name]
        if others:
            raise UsageError(
                f"{self.table.written} was adopted already, as {others[0]!r}",
                why="it has one set of bookkeeping columns, so one source claims from it",
                hint=f"--name {others[0]}, or first: worker tables remove {others[0]}",
            )

    # -- columns ----------------------------------------------------------------------------------

    def _bookkeeping(self) -> tuple[Column, ...]:
        """For the type of the due column, or of the hold's where that is gone."""
        types = self.table.types
        due_type = types.get(self.spec.due) or types.get("duerow_retry_at")
        return bookkeeping(due_type if due_type in DUE_TYPES else DUE_TYPES[0])

    def _missing_columns(self) -> Iterator[Step]:
        missing = missing_columns(self.spec, self.table)
        if missing:
            yield self._columns(missing)

    def _columns(self, columns: list[Column]) -> Step:
        names = [column.name for column in columns]
        return Step(
            f"add {_list(names)} to {self.table.written}",
            up=(Action(statements.add_columns(self._target, columns), patient=True),),
            down=(Action(statements.drop_columns(self._target, names), patient=True),),
        )

    # -- fillfactor -------------------------------------------------------------------------------

    def _other_fillfactor(self, wanted: int | None) -> Iterator[Step]:
        """A partitioned table has none of its own, its partitions have."""
        stored = {self.table.written: self.table.options}
        if self.table.partitioned:
            stored = {part.written: part.options for part in self.table.leaves}
        for written, options in stored.items():
            now = fillfactor_of(options)
            if wanted is not None and wanted != now:
                yield Step(
                    f"leave {100 - wanted} % of each new page of {written} free for updates",
                    up=(Action(statements.set_fillfactor(written, wanted), patient=True),),
                    down=(Action(statements.set_fillfactor(written, now), patient=True),),
                )

    # -- index ------------------------------------------------------------------------------------

    def _unfit_index(self, deparsed: Deparsed | None, which: Which) -> Iterator[Step]:
        target, body = self._target_of(which), statements.body_of(self.spec, which)
        match index_state(self.spec, self.table, deparsed, which):
            case "missing":
                yield self._index("build", target, body)
            case "invalid":
                yield self._index("mend", target, body)
            case "different":
                yield self._other_index(target, body)

    def _leftovers(self) -> Iterator[Step]:
        for which in INDEXES:
            target = self._target_of(which)
            name = interim_name(target)
            if self.table.index(name) is not None:
                drop = Action(statements.drop_index(target, name))
                yield Step(f"drop {name}, left behind by an interrupted change", up=(drop,))

    def _idle_index(self) -> Iterator[Step]:
        """Each write would go on paying for it."""
        target = self._target_of("tenant")
        index = self.table.index(target.index_name)
        if index is not None:
            body = _body_there(index)
            yield Step(
                f"drop the index {index.name}: tenants take no turns (no --per-tenant)",
                up=(self._drop(target),),
                down=self._build(target, body) if body else (),
            )

    def _index(self, verb: str, target: Target, body: IndexBody) -> Step:
        return Step(
            f"{verb} the index {target.index_name}",
            up=self._build(target, body),
            down=(self._drop(target),),
        )

    def _other_index(self, target: Target, body: IndexBody) -> Step:
        there = self.table.index(target.index_name)
        assert there is not None
        before = _body_there(there)
        what = "tenant, condition" if target.which == "tenant" else "condition"
        return Step(
            f"build the index {there.name} anew: its {what} or due column is another",
            up=self._change_index(target, body),
            down=self._change_index(target, before) if before else (self._drop(target),),
        )

    def _change_index(self, target: Target, to: IndexBody) -> tuple[Action, ...]:
        """Claims go on using the old one until the new one is there; not so with partitions, whose
        indexes cannot be dropped CONCURRENTLY."""
        interim = interim_name(target)
        if self.table.partitioned:
            return (self._drop(target), self._index_partitions(target, to, anew=True))
        return (
            Action(statements.drop_index(target, interim)),
            Action(statements.create_index(target, to, interim)),
            Action(statements.drop_index(target)),
            Action(statements.rename_index(target, interim), patient=True),
        )

    def _build(self, target: Target, body: IndexBody) -> tuple[Action, ...]:
        """What an interrupted build left behind is dropped first: IF NOT EXISTS would keep it."""
        if self.table.partitioned:
            return (self._index_partitions(target, body),)
        return (
            Action(statements.drop_index(target)),
            Action(statements.create_index(target, body)),
        )

    def _index_partitions(self, target: Target, body: IndexBody, *, anew: bool = False) -> Action:
        query = statements.index_partitions(target, body, anew=anew)
        here = tuple(Action(text, patient) for patient, text in self.listing(query))
        return Action(query, each=True, here=here)

    def _drop(self, target: Target) -> Action:
        if self.table.partitioned:
            return Action(statements.drop_index_of_partitions(target), patient=True)
        return Action(statements.drop_index(target))

    # -- registration -----------------------------------------------------------------------------

    def _registration(self) -> Step:
        before = registration_of(self.spec, self.table)
        undo = statements.unregister(self.spec.name)
        if before is not None and not registered(self.spec, self.table):
            undo = self._register(spec_of(before))
        return Step(
            f"list {self.spec.name} in worker.sources",
            up=(Action(self._register(self.spec)),),
            down=(Action(undo),),
        )

    def _register(self, spec: TableSpec) -> str:
        by_tenant = self._target_of("tenant") if spec.by_tenant else None
        return statements.register(self._target, by_tenant, spec, add_command(spec))


def _body_there(index: Index) -> IndexBody | None:
    """Of an index that is there, in one of our two shapes; None for another's."""
    match index.columns:
        case (None,):
            on = f"({index.expression})"
        case (str() as tenant, None):
            on = f"{quoted((tenant,))}, ({index.expression})"
        case _:
            return None
    return IndexBody(on, index.predicate)


def _list(names: list[str]) -> str:
    return "the bookkeeping columns" if len(names) == len(NAMES) else ", ".join(names)
