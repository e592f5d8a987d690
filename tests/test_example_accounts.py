"""The example `accounts`, on a clock of its own: 1 s of the scenario takes 20 ms here."""

from __future__ import annotations

import re
from collections import Counter

import psycopg
import pytest

from examples.accounts.play import _overlap, _share, _spread, _trouble
from examples.accounts.scenes import Overlap, Share, Spread, Trouble
from examples.accounts.table import shared_out
from examples.common.ideal import ends, ideal, in_batches
from tests.cli import REPOSITORY, run
from tests.examples import played
from tests.told import number, tables

SCALE = 0.02
SLACK = 10.0  # real seconds, for a busy machine


@pytest.mark.process
def test_the_whole_of_it(db_url: str, pg: psycopg.Connection) -> None:
    ended = played("accounts", "--scale", str(SCALE), "--database-url", db_url)
    told = ended.stdout
    assert ended.returncode == 0, told + ended.stderr
    assert told.splitlines()[-1] == "all of it was true"
    assert "scale: 1 s -> 20 ms" in told

    # As fast as ten slots can be: never faster, and slower by what this machine takes.
    speeds, spread = tables(told)[:2]
    assert [(row["accounts"], row["ideal"]) for row in speeds] == [
        ("10", "3 s"), ("50", "15 s"), ("100", "30 s"), ("200", "60 s")
    ]  # fmt: skip
    for row in speeds:
        least = number(row["ideal"]) * SCALE
        assert 0 <= number(row["here"]) * SCALE - least <= SLACK + 0.5 * least, row

    # Spread over a minute, and none forgotten.
    counts = [int(row[str(second)]) for row in spread for second in range(10)]
    assert sum(counts) == 200
    assert 0 < max(counts) < 50

    # Nobody waited for the slow one; how often the one that fails was tried meanwhile is the
    # machine's affair.
    [(others, slow)] = re.findall(r"the other 48: ([\d.]+) s.*\nthe slow one: ([\d.]+) s", told)
    assert float(others) < float(slow)
    assert float(slow) >= 60
    assert re.search(r"the one that fails: retry at ", told)

    # The log that people knew.
    assert re.search(r"^  claimed 1\d accounts$", told, re.MULTILINE)
    assert re.search(r"^  @user\d+: updated \d+ videos ", told, re.MULTILINE)
    total = r"^  total: (1 dead, )?409 done, \d+ retry; \d+ videos updated$"
    assert re.search(total, told, re.MULTILINE)

    # Four workers, none twice: the API has counted.
    [(refreshed, of)] = re.findall(r"refreshed, as the API counts: (\d+) of (\d+)", told)
    assert refreshed == of
    assert "twice for one due time: 0;" in told
    # the two that come later find nothing left on a machine that takes two seconds to start them
    assert len(re.findall(r"^  \w+-\d+: \d+ refreshes$", told, re.MULTILINE)) >= 2

    # Twenty accounts did not wait for ten thousand.
    [(small, large)] = re.findall(r"the 20: ([\d.]+) s.*\n.*the 10000: (\d+) s", told)
    least = 12 * SCALE
    assert least <= float(small) * SCALE <= least + SLACK
    assert int(large) == 3006

    assert "2 rounds later off by 0 us" in told

    # Adopted as `worker tables add` would have, and the tables tell the same, asked without the
    # example's own code.
    checked = run("tables", "check", "accounts", "--database-url", db_url, cwd=REPOSITORY)
    assert checked.code == 0, checked.out
    assert pg.execute(
        "select count(*) from example_accounts.accounts where videos = 5 + id * 10 % 37"
    ).fetchone() == (10,)
    assert pg.execute("select name, table_name from worker.sources").fetchall() == [
        ("accounts", "example_accounts.accounts")
    ]
    assert pg.execute(
        "select count(*) from worker.workers where stopped_at is null and gone_at is null"
    ).fetchone() == (0,)


# -- what would not be true is said ---------------------------------------------------------------


def test_an_account_refreshed_twice_is_said() -> None:
    assert list(_overlap(Overlap(100, {}, 100, 0, 3, 0))) == []
    for found, said in (
        (Overlap(100, {}, 100, 1, 0, 0), "1 accounts were refreshed twice"),
        (Overlap(100, {}, 99, 0, 0, 0), "1 accounts were not refreshed"),
        (Overlap(100, {}, 100, 0, 0, 1), "1 rows were in two hands at once"),
    ):
        assert list(_overlap(found)) == [said]


def test_a_batch_that_waits_is_said() -> None:
    said, *_ = _trouble(Trouble(48, 46.0, 18.0, 30.0, 46.0, []))
    assert said == "others waited for the slow account"


def test_a_small_organisation_that_waits_is_said() -> None:
    assert list(_share(Share(10_000, 20, 15.0, 12.0, 3006.0, 25))) == []
    for seconds, meanwhile, said in (
        (800.0, 1300, "a large organisation starves a small one"),
        (15.0, 0, "a small organisation stops a large one"),
    ):
        assert list(_share(Share(10_000, 20, seconds, 12.0, 3006.0, meanwhile))) == [said]


def test_due_times_on_a_heap_are_said() -> None:
    assert list(_spread(Spread(Counter(dict.fromkeys(range(60), 3)), 180))) == []
    assert list(_spread(Spread(Counter({0: 180}), 180))) == ["the due times are not spread"]


# -- what is compared with ------------------------------------------------------------------------


def test_the_ideal() -> None:
    assert [ideal([3.0] * n, 10) for n in (0, 10, 50, 100, 200)] == [0, 3, 15, 30, 60]
    assert ends([3, 1, 1, 1], 2) == [3, 1, 2, 3]


def test_batches_wait_for_their_slowest() -> None:
    assert in_batches([3.0] * 100, 10, 1) == 39
    assert in_batches([3.0] * 19 + [30.0], 10, 1) == 34


def test_the_reference_case() -> None:
    assert shared_out(100) == [50, 30, 20]
    assert sum(shared_out(10_001)) == 10_001
