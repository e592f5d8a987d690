"""`worker limits`, `worker pause`, `worker resume`."""

from __future__ import annotations

import asyncpg
import pytest

from tests.cli import CLI
from tests.workers import drained, put
from worker import App
from worker.errors import RegistrationError


def an_app() -> App:
    app = App()

    @app.handler
    async def send() -> None: ...

    return app


@pytest.fixture
def cli(db_url: str, capsys: pytest.CaptureFixture[str]) -> CLI:
    return CLI(db_url, capsys)


@pytest.fixture
def limits(cli: CLI) -> CLI:
    assert cli("limits", "set", "-k", "send", "--rate", "600/m", "--burst", "3").code == 0
    return cli


def test_limits_are_set_listed_and_removed(limits: CLI) -> None:
    [listed] = limits("limits", "list").rows
    assert (listed["kind"], listed["rate"], listed["burst"]) == ("send", "10", "3")
    assert (listed["queue"], listed["tenant"], listed["state"]) == ("", "", "free")
    assert listed["set_by"] != "code"
    again = limits("limits", "set", "-k", "send", "--rate", "600/m", "--burst", "3", "--by", "me")
    assert again.code == 0
    assert limits("limits", "remove", "--kind", "send").code == 0
    assert limits("limits", "list").rows == []
    assert limits("limits", "remove", "--kind", "send").err == "kind send has no limits\n"


def test_what_is_left_out_is_taken_away(limits: CLI) -> None:
    limits("limits", "set", "-k", "send", "--concurrency", "2")
    [listed] = limits("limits", "list").rows
    assert (listed["rate"], listed["concurrency"]) == ("", "2")


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--rate", "5/s"], "it is not said which rows are meant"),
        (["-k", "send"], "the limit limits nothing"),
        (["-k", "send", "--rate", "five"], "a rate is written like 50/s or 600/m"),
        (["-k", "send", "--rate", "0/s"], "is out of range"),
        (["-k", "send", "--burst", "3"], "the limit limits nothing"),
        (["-k", "send", "--concurrency", "0"], "concurrency=0 is not 1 or more"),
        (["-k", "send", "--failing", "50"], "share=50.0 is not a part of 1"),
        (["--tenant", "*", "--rate", "5/s"], "it is not said which rows are meant"),
    ],
)
def test_a_limit_that_makes_no_sense_is_refused(cli: CLI, flags: list[str], told: str) -> None:
    found = cli("limits", "set", *flags)
    assert found.code == 2
    assert told in found.err
    assert cli("limits", "list").rows == []


async def test_an_operators_word_outranks_the_code_until_it_is_taken_back(
    limits: CLI, db_url: str, apg: asyncpg.Connection
) -> None:
    app = an_app()
    app.limit(kind="send", concurrency=7)
    rate = "select rate, concurrency, set_by = 'code' as code from worker.gates"
    await drained(app, db_url)
    assert tuple(await apg.fetchrow(rate)) == (10, None, False)
    await apg.execute("update worker.gates set rate = null, burst = null, set_by = null")
    await drained(app, db_url)
    assert tuple(await apg.fetchrow(rate)) == (None, 7, True)


async def test_pause_and_resume_say_who_and_why(
    cli: CLI, db_url: str, apg: asyncpg.Connection
) -> None:
    await put(apg, "send", tenant="acme")
    paused = cli("pause", "--kind", "send", "--tenant", "acme", "--reason", "asked", "--by", "ada")
    assert (paused.code, paused.err) == (0, "")
    assert paused.record["paused_by"] == "ada"
    [listed] = cli("limits", "list").rows
    assert (listed["state"], listed["by"], listed["why"]) == ("paused", "ada", "asked")
    assert "was paused already" in cli("pause", "-k", "send", "--tenant", "acme").err
    await drained(an_app(), db_url)
    assert await apg.fetchval("select count(*) from worker.jobs") == 1
    assert cli("resume", "-k", "send", "--tenant", "acme").code == 0
    assert "was not paused" in cli("resume", "-k", "send", "--tenant", "acme").err
    await drained(an_app(), db_url)
    assert await apg.fetchval("select count(*) from worker.jobs") == 0
    deeds = await apg.fetch("select action, target, actor from worker.operator_actions order by id")
    assert [tuple(deed)[:2] for deed in deeds] == [
        ("pause", "kind send tenant acme"),
        ("resume", "kind send tenant acme"),
    ]


def test_pausing_what_nobody_knows_is_said(cli: CLI) -> None:
    found = cli("pause", "--kind", "sned")
    assert found.code == 0
    assert found.err == "no job and no worker names kind sned; it is paused all the same\n"


async def test_an_open_breaker_can_be_closed_by_hand(cli: CLI, apg: asyncpg.Connection) -> None:
    cli("limits", "set", "-k", "send", "--failures", "3")
    await apg.execute(
        "update worker.gates set opened_at = now(), open_until = now() + interval '1 h'"
    )
    [listed] = cli("limits", "list").rows
    assert listed["state"] == "open"
    assert cli("limits", "reset", "-k", "send").code == 0
    [listed] = cli("limits", "list").rows
    assert listed["state"] == "free"
    assert "no open breaker" in cli("limits", "reset", "-k", "send").err


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"rate": 5}, "a limit needs a queue, a kind or a tenant"),
        ({"kind": "send"}, "the limit limits nothing"),
        ({"kind": "send", "rate": 0}, "is out of range"),
        ({"kind": "send", "rate": 5, "per": 0}, "per=0 is no length of time"),
        ({"kind": "send", "concurrency": 3, "burst": 2}, "burst=2 makes no sense here"),
        ({"kind": "send", "tenant": "*", "rate": 1}, "no tenant can be called '*' here"),
        (
            {"kind": "send", "tenant": "a", "each_tenant": True, "rate": 1},
            "tenant and each_tenant are both said",
        ),
    ],
)
def test_a_limit_in_the_code_that_makes_no_sense_is_refused(
    given: dict[str, object], told: str
) -> None:
    with pytest.raises(RegistrationError, match=told.replace("*", r"\*")):
        an_app().limit(**given)  # type: ignore[arg-type]


def test_a_breaker_in_the_code_that_makes_no_sense_is_refused() -> None:
    for given, told in (
        ({"failures": None}, "the breaker would never open"),
        ({"failures": 0}, "failures=0 is not 1 or more"),
        ({"share": 2.0}, "share=2.0 is not a part of 1"),
        ({"pause": 0}, "pause=0.0 is not up to a day"),
    ):
        with pytest.raises(RegistrationError, match=told):
            an_app().breaker(kind="send", **given)  # type: ignore[arg-type]
    twice = an_app()
    twice.limit(kind="send", rate=1)
    twice.breaker(kind="send")
    with pytest.raises(RegistrationError, match="two limits are said of kind send"):
        twice.limit(kind="send", concurrency=1)
