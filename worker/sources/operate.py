"""What an operator asks of an adopted table: sql/sources/operate/, with its names put in."""

from __future__ import annotations

from psycopg import sql

from worker.sources.rows import Layout, filled, key_text, stored
from worker.tables.spec import TableSpec


def operation(name: str, spec: TableSpec, layout: Layout) -> str:
    """The text of sql/sources/operate/<name>.sql for that table."""
    naive = layout.types[spec.due].startswith("timestamp without")
    due = sql.Identifier(spec.due)
    zone = sql.SQL(" at time zone 'UTC'" if naive else "")
    held = sql.SQL("{of}duerow_held_for = {of}{due}")
    falls_due = sql.SQL(
        "case when w.duerow_held_for = w.{due} then w.duerow_retry_at else w.{due} end"
    ).format(due=due)
    parts = [key_text("w", [column], layout) for column in spec.key]
    return filled(
        f"operate/{name}",
        spec,
        layout,
        state=_state(spec, held.format(of=sql.SQL("w."), due=due), falls_due, naive),
        still_counts=held.format(of=sql.SQL("t."), due=due)
        + sql.SQL(" and t.duerow_state is null"),
        until=sql.SQL(
            stored("coalesce($4::timestamptz, now() + make_interval(secs => $5::float8))", naive)
        ),
        due_moment=_finite(falls_due, zone),
        key_parts=sql.SQL("jsonb_build_array({})").format(sql.SQL(", ").join(parts)),
    )


def _state(
    spec: TableSpec, held: sql.Composable, falls_due: sql.Composable, naive: bool
) -> sql.Composable:
    return sql.SQL(
        "case when w.duerow_owner is not null then 'running'"
        " when {held} and w.duerow_state is not null then w.duerow_state"
        " when {condition} is not true or {falls_due} is null or not isfinite({falls_due})"
        " then 'idle'"
        " when {falls_due} <= {now} then 'due'"
        " when {held} and w.duerow_attempt > 0 then 'retrying'"
        " else 'scheduled' end"
    ).format(
        held=held,
        falls_due=sql.SQL("({})").format(falls_due),
        condition=sql.SQL(f"(\n{spec.where or 'true'}\n)"),
        now=sql.SQL(stored("now()", naive)),
    )


def _finite(moment: sql.Composable, zone: sql.Composable) -> sql.Composable:
    """As timestamptz; null for what no Python date can say."""
    return sql.SQL("case when isfinite({m}) then ({m}){zone} end").format(m=moment, zone=zone)
