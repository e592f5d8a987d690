"""The same runs on tables that a user already has, who goes on changing their rows meanwhile."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from tests.adoption import adopt
from tests.chaos.workload import Final, Live, Workload

TABLE = Path(__file__).parent / "adopted.sql"


class Adopted(Workload):
    """A table with a UUID key whose rows are due once. Its handler does what a row's kind says, all
    in one place: the kinds of ordinary work are one, and rows have no queue, priority or limit of
    attempts."""

    source = "chaos_rows"
    app = "tests.chaos.adopted_handlers:plain"
    app_in_thread = "tests.chaos.adopted_handlers:in_thread"
    kind = "work"

    def app_for(self, kind: str) -> str:
        return self.app_in_thread if kind in ("block_thread", "spin_thread") else self.app

    def put_off(self, db: psycopg.Connection[Any]) -> None:
        db.execute(
            f"update {self.source} set due_at = now() + interval '1 h' where due_at <= now()"
        )

    def prepare(self, db: psycopg.Connection[Any], url: str) -> None:
        super().prepare(db, url)
        db.execute(TABLE.read_text().replace("chaos_rows", self.source))
        adopt(url, self.source, "--due", "due_at")
        db.execute(f"select chaos.record_adopted('{self.source}')")

    def give_back(self, db: psycopg.Connection[Any], pid: int) -> int:
        return db.execute(
            f"""update {self.source} set duerow_owner = null, duerow_attempt = duerow_attempt - 1
                 where duerow_owner in (select id from worker.workers where pid = %s)""",
            [pid],
        ).rowcount

    def load(
        self,
        db: psycopg.Connection[Any],
        count: int,
        kind: str,
        args: Mapping[str, Any],
        **columns: Any,
    ) -> list[str]:
        rows = db.execute(
            f"""insert into {self.source} (kind, ms, fails, due_at)
                select %s, %s, %s, now() from generate_series(1, %s) returning id""",
            [kind, args.get("ms", 0), args.get("fails", 0), count],
        )
        return [str(key) for (key,) in rows]

    def finals(self, db: psycopg.Connection[Any]) -> list[Final]:
        rows = db.execute(
            f"""select t.id::text, coalesce(t.duerow_state, 'done'), t.duerow_token, a.worker,
                       a.attempt, t.duerow_crashes, a.error_type is distinct from 'WorkerGone'
                  from {self.source} t
                  left join worker.attempts a
                    on a.source = %s and a.row_key = t.id::text and a.token = t.duerow_token
                   and a.outcome in ('done', 'dead', 'cancelled')
                 where {FINAL}""",
            [self.source],
        )
        return [
            Final(key, self.kind, state, token, worker, attempt, None, crashes, ran)
            for key, state, token, worker, attempt, crashes, ran in rows
        ]

    def live(self, db: psycopg.Connection[Any]) -> list[Live]:
        rows = db.execute(
            f"""select id::text, duerow_owner, duerow_token, duerow_attempt
                  from {self.source} t where not ({FINAL})"""
        )
        return [Live(*row) for row in rows]

    def unfinished(self, db: psycopg.Connection[Any]) -> int:
        sql = f"select count(*) from {self.source} t where not ({FINAL})"
        [count] = db.execute(sql).fetchone() or [0]
        return int(count)

    @contextmanager
    def meddling(self, url: str) -> Iterator[None]:
        """The table's own application: it changes rows, and sometimes keeps them locked a while."""
        over = threading.Event()
        thread = threading.Thread(target=self._meddle, args=(url, over), daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(30)

    def _meddle(self, url: str, over: threading.Event) -> None:
        change = f"""update {self.source} set note = note + 1
                      where number in (
                          select 1 + (random() * (select max(number) from {self.source}))::int
                            from generate_series(1, 5))"""
        while not over.wait(random.uniform(0, 0.02)):
            try:
                with psycopg.connect(url) as user:
                    while not over.wait(random.uniform(0, 0.02)):
                        user.execute(change)
                        over.wait(random.choice((0, 0, 0, 0.01, 0.1)))
                        user.commit()
            except psycopg.OperationalError:
                over.wait(0.5)  # the server is away


class AdoptedInSession(Adopted):
    """Its handler writes through a session in which the row is settled, too."""

    source = "chaos_session_rows"
    app = "tests.chaos.adopted_handlers:in_session"
    app_in_thread = "tests.chaos.adopted_handlers:in_thread_and_session"
    kind = "work_in_session"


FINAL = "t.due_at is null or t.duerow_state is not null"
