"""Settings: who wins, what is accepted, what is refused and how it is told."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from worker.errors import SettingsError
from worker.settings import Settings, setting_rows, settings_table

MANUAL = Path(__file__).parent.parent / "docs" / "settings.md"
Write = Callable[[str], Path]


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """An empty project in the working directory, an environment that says nothing.

    Gives a function that writes `[tool.duerow]` of its pyproject.toml.
    """
    for name in os.environ:
        if name.startswith(("DUEROW_", "PG", "RAILWAY_", "DATABASE_")) or name == "DYNO":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def write(body: str) -> Path:
        file = tmp_path / "pyproject.toml"
        file.write_text(f"[tool.duerow]\n{body}\n")
        return file

    return write


def error_of(**flags: object) -> str:
    with pytest.raises(SettingsError) as caught:
        Settings.load(**flags)
    assert caught.value.exit_code == 2
    assert caught.value.hint
    return str(caught.value)


class TestPrecedence:
    def test_flag_then_variable_then_pyproject_then_default(
        self, project: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def concurrency(**flags: object) -> tuple[int, str]:
            settings = Settings.load(**flags)
            return settings.concurrency, settings.origins()["concurrency"]

        assert concurrency() == (10, "default")
        file = project("concurrency = 11")
        assert concurrency() == (11, f"{file} [tool.duerow]")
        monkeypatch.setenv("DUEROW_CONCURRENCY", "12")
        assert concurrency() == (12, "env DUEROW_CONCURRENCY")
        assert concurrency(concurrency=13) == (13, "flag --concurrency")
        assert concurrency(concurrency=None) == (12, "env DUEROW_CONCURRENCY")

    def test_the_defaults(self) -> None:
        settings = Settings.load()
        assert settings.model_dump() == {
            "database_url": None,
            "direct_url": None,
            "app": None,
            "queues": (),
            "concurrency": 10,
            "processes": 1,
            "lease": 30,
            "grace": 25,
            "poll_interval": 1,
            "poll_max": 10,
            "pool_size": None,
            "claim_batch": 500,
            "timeout": 600,
            "max_crashes": 3,
            "payload_limit": 262144,
            "retention": 1209600,
            "attempts_retention": 2592000,
            "partitions_ahead": 7,
            "log_level": "INFO",
            "log_format": "auto",
            "statement_timeout": 10,
            "connect_timeout": 5,
            "max_rss_mb": None,
            "worker_name": None,
            "health": None,
            "listen": True,
        }
        assert set(settings.origins().values()) == {"default"}
        assert settings.warnings == ()

    def test_an_empty_variable_says_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DUEROW_CONCURRENCY", "")
        monkeypatch.setenv("DATABASE_URL", "")
        assert Settings.load().origins()["concurrency"] == "default"

    def test_the_nearest_pyproject_that_has_a_table(
        self, project: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = project("concurrency = 11")
        inner = tmp_path / "package" / "source"
        inner.mkdir(parents=True)
        (inner.parent / "pyproject.toml").write_text("[tool.other]\nconcurrency = 1\n")
        monkeypatch.chdir(inner)
        assert Settings.load().origins()["concurrency"] == f"{file} [tool.duerow]"

        (inner.parent / "pyproject.toml").write_text("[tool.duerow]\nlease = 9\n")
        assert (Settings.load().lease, Settings.load().concurrency) == (9, 10)

    def test_nested_variables(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Web(BaseModel):
            port: int = 1

        class Nested(Settings):
            web: Web = Web()

        monkeypatch.setenv("DUEROW_WEB__PORT", "8080")
        settings = Nested.load()
        assert settings.web.port == 8080
        assert settings.origins()["web"] == "env DUEROW_WEB__PORT"
        assert settings.warnings == ()


class TestDatabase:
    def test_database_url_is_read_when_ours_is_not_set(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def origin(host: str) -> str:
            settings = Settings.load()
            assert settings.database_url is not None
            assert settings.database_url.addresses[0].host == host
            return settings.origins()["database_url"]

        monkeypatch.setenv("PGHOST", "of_psql")
        assert origin("of_psql") == "env PGHOST"
        monkeypatch.setenv("DATABASE_URL", "postgres://theirs/d")
        assert origin("theirs") == "env DATABASE_URL"
        monkeypatch.setenv("DUEROW_DATABASE_URL", "postgres://ours/d")
        assert origin("ours") == "env DUEROW_DATABASE_URL"

    def test_pyproject_goes_before_psqls_variables(
        self, project: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PGHOST", "of_psql")
        project('database_url = "postgres://of_project/d"')
        assert str(Settings.load().database_url).count("of_project") == 1

    def test_embedded_can_be_asked_for(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DATABASE_URL", "postgres://h/d")
        settings = Settings.load(database_url="embedded")
        assert settings.database_url is None
        assert settings.origins()["database_url"] == "flag --database-url"

    def test_no_output_shows_a_password(self) -> None:
        settings = Settings.load(
            database_url="postgres://u:hunter2@h/d", direct_url="postgres://u:hunter2@i/d"
        )
        rows = setting_rows(settings)
        shown = f"{settings} {settings!r} {settings.model_dump_json()} {rows} {settings.origins()}"
        assert "hunter2" not in shown
        assert rows[0].value == "postgresql://u:***@h:5432/d?sslmode=prefer"

    @pytest.mark.parametrize(
        "url", ["postgres://u:hunter2@h:x/d", "postgres://u:hunter/2@h/d", "hunter2", "'hunter2"]
    )
    def test_no_error_shows_a_password(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DATABASE_URL", url)
        message = error_of()
        assert "env DATABASE_URL" in message
        assert "hunter" not in message
        with pytest.raises(ValidationError) as caught:
            Settings(direct_url=url)
        assert "hunter" not in str(caught.value)

    def test_notes_of_the_url_are_warnings(self) -> None:
        settings = Settings.load(database_url="postgres://h/d?pgbouncer=true")
        assert settings.warnings == (
            "database_url: pgbouncer in the database URL is for Prisma and is not used",
        )


class TestValues:
    @pytest.mark.parametrize(
        ("name", "text", "value"),
        [
            ("lease", "1m30s", 90),
            ("lease", "250ms", 0.25),
            ("lease", "45", 45),
            ("retention", "2w", 1209600),
            ("timeout", "0", None),
            ("timeout", "0s", None),
            ("timeout", "none", None),
            ("timeout", "5m", 300),
            ("payload_limit", "1MB", 1_000_000),
            ("payload_limit", "256KiB", 262_144),
            ("payload_limit", "4096", 4096),
            ("queues", "a, b,a", ("a", "b")),
            ("queues", "*", ()),
            ("listen", "false", False),
            ("log_level", "debug", "DEBUG"),
            ("app", "shop.jobs:app", "shop.jobs:app"),
        ],
    )
    def test_text_from_the_environment(
        self, name: str, text: str, value: object, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(f"DUEROW_{name.upper()}", text)
        assert getattr(Settings.load(), name) == value

    def test_values_from_toml(self, project: Write) -> None:
        project(
            'queues = ["a", "b"]\ntimeout = 0\nlease = 1.5\nlisten = false\n"poll-max" = "1m"\n'
            'payload_limit = "1MiB"'
        )
        settings = Settings.load()
        assert (settings.queues, settings.timeout, settings.lease) == (("a", "b"), None, 1.5)
        assert (settings.listen, settings.poll_max, settings.payload_limit) == (False, 60, 2**20)
        assert settings.origins()["poll_max"].endswith("pyproject.toml [tool.duerow]")

    def test_an_empty_tuple_from_click_is_no_flag(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DUEROW_QUEUES", "a")
        assert Settings.load(queues=()).queues == ("a",)
        assert Settings.load(queues=("b", "c")).queues == ("b", "c")

    def test_they_cannot_be_changed(self) -> None:
        with pytest.raises(ValidationError):
            Settings.load().lease = 3

    @pytest.mark.parametrize(
        ("name", "value", "words"),
        [
            ("concurrency", "many", "'many': should be a valid integer"),
            ("concurrency", 0, "0: should be greater than or equal to 1"),
            ("concurrency", 10001, "less than or equal to 10000"),
            ("lease", "soon", "'soon': a duration is written like 30s"),
            ("lease", "0s", "greater than 0"),
            ("grace", "-1s", "cannot be negative"),
            ("payload_limit", "big", "a size is written like"),
            ("payload_limit", "3 parsecs", "a size is written like"),
            ("queues", "a,,b", "not of the right form; it is: Queues"),
            ("queues", "a,*", "'*': not of the right form"),
            ("log_level", "loud", "should be 'DEBUG', 'INFO'"),
            ("app", "jobs", "'jobs': not of the right form; it is: Module and name"),
            ("database_url", "mysql://h/d", "the scheme is mysql"),
            ("listen", "perhaps", "boolean"),
            ("max_rss_mb", "1.5", "valid integer"),
            ("worker_name", "x" * 200, "xxx...: "),
        ],
    )
    def test_bad_values_are_refused(self, name: str, value: object, words: str) -> None:
        message = error_of(**{name: value}).replace("\n", " ")
        assert words in message
        assert f" {name} (flag --{name.replace('_', '-')}): " in message

    def test_every_bad_value_is_listed_with_where_it_was_said(
        self, project: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = project('lease = "soon"\nconcurency = 3')
        monkeypatch.setenv("DUEROW_GRACE", "later")
        assert error_of(pool_size=0) == (
            "4 settings are not valid\n"
            "  why:  lease (FILE): 'soon': a duration is written like 30s, 5m, 2h, 1h30m, 1d or"
            " 250ms\n"
            "        grace (env DUEROW_GRACE): 'later': a duration is written like 30s, 5m, 2h,"
            " 1h30m, 1d or 250ms\n"
            "        pool_size (flag --pool-size): 0: should be greater than or equal to 1\n"
            "        concurency (FILE): there is no such setting; did you mean concurrency?\n"
            "  next: correct FILE and env DUEROW_GRACE and flag --pool-size"
        ).replace("FILE", f"{file} [tool.duerow]")

    def test_an_unknown_variable_is_a_warning(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("DUEROW_CONCURENCY", "3")
        assert Settings.load().warnings == (
            "DUEROW_CONCURENCY means nothing and is not read; did you mean DUEROW_CONCURRENCY?",
        )

    def test_a_broken_pyproject_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "pyproject.toml").write_text("[tool.duerow\n")
        assert f"{tmp_path / 'pyproject.toml'} cannot be read" in error_of()


class TestRailway:
    @pytest.mark.parametrize(("draining", "grace"), [("30", 28), ("3", 1.5), ("0", 0), ("1m", 58)])
    def test_grace_follows_the_draining_time(
        self, draining: str, grace: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RAILWAY_ENVIRONMENT", "production")
        monkeypatch.setenv("RAILWAY_DEPLOYMENT_DRAINING_SECONDS", draining)
        settings = Settings.load()
        assert settings.grace == grace
        assert settings.origins()["grace"] == "env RAILWAY_DEPLOYMENT_DRAINING_SECONDS"
        assert settings.warnings == ()
        assert Settings.load(grace="7s").grace == 7

    def test_without_a_draining_time_there_is_little_grace_and_a_warning(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("RAILWAY_ENVIRONMENT", "production")
        settings = Settings.load()
        assert settings.grace == 1.5
        assert "RAILWAY_DEPLOYMENT_DRAINING_SECONDS=30" in settings.warnings[0]
        assert Settings.load(grace=1).warnings == ()

    def test_elsewhere_its_variable_means_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RAILWAY_DEPLOYMENT_DRAINING_SECONDS", "100")
        assert Settings.load().grace == 25

    def test_a_bad_draining_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("RAILWAY_ENVIRONMENT", "production")
        monkeypatch.setenv("RAILWAY_DEPLOYMENT_DRAINING_SECONDS", "long")
        assert "RAILWAY_DEPLOYMENT_DRAINING_SECONDS is not valid" in error_of()


class TestManual:
    def test_it_has_the_table_of_all_settings(self) -> None:
        """If this fails: put what `python -m worker.settings` writes into docs/settings.md."""
        assert settings_table() in MANUAL.read_text()
        for name in Settings.model_fields:
            assert f"| `{name}` | `DUEROW_{name.upper()}` |" in settings_table()

    def test_every_setting_is_described(self) -> None:
        assert all(row.about for row in setting_rows(Settings.load()))

    def test_what_rows_show_can_be_said_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """But for passwords, and for `none` where there is no word for it."""
        wanted = Settings.load(
            queues="*", timeout="none", lease="90s", payload_limit="1000000", listen="no"
        )
        for row in setting_rows(wanted):
            if row.value != "none" or row.name == "timeout":
                monkeypatch.setenv(f"DUEROW_{row.name.upper()}", row.value)
        assert Settings.load().model_dump() == wanted.model_dump()


@hypothesis_settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    max_examples=50,
)
@given(
    name=st.sampled_from(sorted(Settings.model_fields)),
    value=st.text(max_size=20) | st.integers() | st.floats() | st.booleans() | st.lists(st.text()),
)
def test_any_value_is_a_setting_or_an_error_of_ours(name: str, value: object) -> None:
    try:
        Settings.load(**{name: value})
    except SettingsError as error:
        message = str(error)
    else:
        return
    assert name in message
