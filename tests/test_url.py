"""The database URL as text: what is accepted, what it means, what is refused, what is shown."""

from __future__ import annotations

import copy
import logging
import os
import pickle
import pwd
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from worker.errors import InvalidURL
from worker.url import Address, DatabaseURL, redact
from worker.url.parameters import SSLMODES
from worker.url.passfile import password_for

# Arguments of asyncpg.connect that say where and how.
ARGUMENTS = (
    *("dsn", "host", "port", "user", "password", "passfile", "database", "ssl", "service"),
    *("servicefile", "direct_tls", "server_settings", "target_session_attrs", "krbsrvname"),
    "gsslib",
)
ME = pwd.getpwuid(os.geteuid()).pw_name
NOWHERE = {"HOME": "/nonexistent"}


def parse(text: str, **environ: str) -> DatabaseURL:
    return DatabaseURL.parse(text, NOWHERE | environ)


def refused(text: str, **environ: str) -> str:
    with pytest.raises(InvalidURL) as caught:
        parse(text, **environ)
    assert caught.value.what
    assert caught.value.why
    assert caught.value.hint
    return str(caught.value)


class TestForms:
    @pytest.mark.parametrize(
        "scheme",
        [
            "postgres",
            "postgresql",
            "POSTGRES",
            "postgresql+asyncpg",
            "postgresql+psycopg",
            "postgres+psycopg2",
        ],
    )
    def test_every_scheme_means_the_same(self, scheme: str) -> None:
        url = parse(f" {scheme}://u:p@h:1/d\n")
        assert (url.addresses, url.user, url.password, url.database) == (
            (Address("h", 1),),
            "u",
            "p",
            "d",
        )

    @pytest.mark.parametrize(
        ("password", "written"),
        [
            ("@:/?#%&=+ ", "%40%3A%2F%3F%23%25%26%3D%2B%20"),
            ("é", "%C3%A9"),
            ("a+b", "a+b"),
            ("p@ss", "p@ss"),
            ("p#s", "p#s"),
            ("p?s", "p?s"),
            ("p:s", "p:s"),
        ],
    )
    def test_passwords(self, password: str, written: str) -> None:
        url = parse(f"postgres://u:{written}@h/d?application_name=me@here")
        assert (url.user, url.password, url.database) == ("u", password, "d")
        assert url.addresses == (Address("h"),)
        assert url.get("application_name") == "me@here"

    @pytest.mark.parametrize(
        ("place", "addresses"),
        [
            ("h1:1,h2:2", [("h1", 1), ("h2", 2)]),
            ("h1,h2:2", [("h1", 5432), ("h2", 2)]),
            ("[::1]", [("::1", 5432)]),
            ("[::1]:7,[fe80::1%25eth0]:8", [("::1", 7), ("fe80::1%eth0", 8)]),
            ("%2Fvar%2Frun:7", [("/var/run", 7)]),
            (":7", [("", 7)]),
            ("", [("", 5432)]),
        ],
    )
    def test_places(self, place: str, addresses: list[tuple[str, int]]) -> None:
        url = parse(f"postgres://{place}/d")
        assert url.addresses == tuple(Address(*address) for address in addresses)
        assert parse(url.unmasked()) == url

    @pytest.mark.parametrize(
        ("query", "addresses"),
        [
            ("host=/dir", [("/dir", 5432)]),
            ("host=a,b&port=1,2", [("a", 1), ("b", 2)]),
            ("host=a,b&port=1", [("a", 1), ("b", 1)]),
            ("host=::1&port=3", [("::1", 3)]),
            ("hostaddr=10.0.0.1", [("10.0.0.1", 5432)]),
        ],
    )
    def test_places_in_the_query(self, query: str, addresses: list[tuple[str, int]]) -> None:
        url = parse(f"postgres:///d?{query}")
        assert url.addresses == tuple(Address(*address) for address in addresses)

    def test_the_query_wins_over_the_path(self) -> None:
        url = parse("postgres://u:p@h:1/d?user=v&password=q&dbname=e&host=i&port=2")
        assert url.unmasked() == "postgresql://v:q@i:2/e?sslmode=prefer"

    def test_what_is_left_out_is_libpqs_default(self) -> None:
        url = parse("postgres://")
        assert url == DatabaseURL((Address("", 5432),), ME, ME)
        assert parse("postgres://u@h").database == "u"

    @pytest.mark.parametrize("ssl", [("true", "require"), ("verify-full", "verify-full")])
    def test_ssl_of_other_libraries(self, ssl: tuple[str, str]) -> None:
        assert parse(f"postgres://h/d?ssl={ssl[0]}").sslmode == ssl[1]

    def test_parameters_of_other_libraries_are_dropped_and_noted(self) -> None:
        url = parse("postgres://h/d?pgbouncer=true&pool_timeout=3&connection_limit=1&supa=x")
        assert url.parameters == ()
        assert [note.split()[0] for note in url.notes] == [
            "pgbouncer",
            "pool_timeout",
            "connection_limit",
            "supa",
        ]

    def test_neons_channel_binding_is_kept_for_the_driver_that_has_it(self) -> None:
        url = parse("postgres://h/d?sslmode=require&channel_binding=require")
        assert conninfo_to_dict(url.psycopg_conninfo())["channel_binding"] == "require"
        assert "asyncpg has no channel binding" in url.notes[0]


class TestEnvironment:
    ALL: Mapping[str, str] = {
        "PGHOST": "h1,h2",
        "PGPORT": "1,2",
        "PGUSER": "u",
        "PGPASSWORD": "p w",
        "PGDATABASE": "d",
        "PGSSLMODE": "verify-ca",
        "PGSSLROOTCERT": "/ca.pem",
        "PGSSLCERT": "/c.pem",
        "PGSSLKEY": "/k.pem",
        "PGPASSFILE": "/pass",
        "PGAPPNAME": "app",
        "PGCONNECT_TIMEOUT": "7",
        "PGTARGETSESSIONATTRS": "primary",
        "PGOPTIONS": "-c x.y=1",
    }

    def test_every_variable_is_read(self) -> None:
        url = DatabaseURL.from_environment({**NOWHERE, **self.ALL})
        assert url.unmasked() == (
            "postgresql://u:p%20w@h1:1,h2:2/d?sslmode=verify-ca&application_name=app"
            "&connect_timeout=7&options=-c%20x.y%3D1&passfile=%2Fpass&sslcert=%2Fc.pem"
            "&sslkey=%2Fk.pem&sslrootcert=%2Fca.pem&target_session_attrs=primary"
        )

    def test_the_url_wins_and_the_environment_fills_gaps(self) -> None:
        url = parse("postgres://v@h:9?sslmode=disable", **self.ALL)
        assert (url.user, url.password, url.database, url.sslmode) == ("v", "p w", "d", "disable")
        assert url.addresses == (Address("h", 9),)

    def test_an_empty_variable_says_nothing(self) -> None:
        assert parse("postgres://h/d", PGUSER="", PGSSLMODE="").user == ME

    def test_a_service_stands_between_url_and_variables(self, tmp_path: Path) -> None:
        file = tmp_path / "services"
        file.write_text("[s]\nuser=of_service\ndbname=of_service\nport=7\n")
        environ = {"PGSERVICEFILE": str(file), "PGUSER": "of_variable", "PGHOST": "h"}
        url = parse("postgres:///of_url?service=s", **environ)
        assert str(url) == "postgresql://of_service@h:7/of_url?sslmode=prefer"
        assert parse("postgres:///of_url", PGSERVICE="s", **environ) == url
        assert "[t]" in refused("postgres:///?service=t", **environ)

    def test_heroku_means_tls_unless_the_url_says_otherwise(self) -> None:
        assert parse("postgres://h/d", DYNO="worker.1").sslmode == "require"
        assert parse("postgres://h/d?sslmode=disable", DYNO="worker.1").sslmode == "disable"
        assert parse("postgres://h/d", DYNO="worker.1", PGSSLMODE="allow").sslmode == "allow"
        assert parse("postgres:///d?host=/tmp", DYNO="worker.1").sslmode == "prefer"

    def test_errors_name_the_variable(self) -> None:
        assert "PGPORT" in refused("postgres://h/d", PGPORT="x")
        assert "PGSSLMODE" in refused("postgres://h/d", PGSSLMODE="x")
        assert "PGHOSTADDR" in refused("postgres://h/d", PGHOSTADDR="10.0.0.1")


class TestRefused:
    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("", "it is empty"),
            ("mysql://u:hunter2@h/d", "the scheme is mysql"),
            ("'postgres://u:hunter2@h/d'", "remove the quotes"),
            ("psql postgres://u:hunter2@h/d", "psql command"),
            ("host=h password=hunter2", "key=value"),
            ("hunter2", "does not start with postgres://"),
            ("postgres://u:hunter2@h:0/d", "from 1 to 65535"),
            ("postgres://u:hunter2@h:65536/d", "The port 65536 is not valid"),
            ("postgres://u:hunter2@h:x/d", "The port is not valid"),
            ("postgres://u:hunter2@h:٣/d", "The port is not valid"),
            ("postgres://u:hunter2@h:1:2/d", "The port is not valid"),
            ("postgres://u:hunter2@h,/d", "comma too many"),
            ("postgres://u:hunter2@[::1/d", "brackets"),
            ("postgres://u:hunter2@a b/d", "holds a space"),
            ("postgres://u:hunter2@%40abstract/d", "abstract socket"),
            ("postgres:///d?host=a,b&port=1,2,3", "3 ports for 2 hosts"),
            ("postgres://h/d?hostaddr=10.0.0.1", "cannot both be given"),
            ("postgres://u:hunter2%@h/d", "%25"),
            ("postgres://u:hunter2%ff@h/d", "not UTF-8"),
            ("postgres://u:hunter2%00@h/d", "control character"),
            ("postgres://u%0a:hunter2@h/d", "control character (code 10)"),
            ("postgres://u:hunter2@h/d\n?sslmode=require", "control character (code 10)"),
            ("postgres://u:hunter2@h/d?application_name=a%1b", "control character (code 27)"),
            ("postgres://u:hunter2@h/d?sslmode=no-verify", "perhaps require"),
            ("postgres://u:hunter2@h/d?sslmode=verify_full", "perhaps verify-full"),
            ("postgres://u:hunter2@h/d?aplication_name=x", "did you mean application_name"),
            ("postgres://u:hunter2@h/d?zzz=x", "accepted are application_name, channel"),
            ("postgres://u:hunter2@h/d?connect_timeout=5s", "whole number"),
            ("postgres://u:hunter2@h/d?target_session_attrs=rw", "one of any, read-write"),
            ("postgres://u:hunter2@h/d?require_auth=scram-sha-256", "asyncpg cannot"),
            ("postgres://u:hunter2@h/d?gssencmode=require", "use TLS"),
            ("postgres://u:hunter2@h/d?sslrootcert=system&sslmode=require", "too weak"),
            ("postgres://u:hunter2@h/d?sslnegotiation=direct", "too weak"),
            ("postgres://u:hunter/2@h/d", "write @ as %40"),
            ("postgres://u:1234/hunter2@h/d", "/ as %2F"),
            ("postgres://u:p@h:hunter2/x@h/d", "/ as %2F"),
            ("postgres://u:p@hunter2?hunter2@h/d", "? as %3F"),
        ],
    )
    def test_the_message_tells_why_and_never_the_password(self, text: str, words: str) -> None:
        message = refused(text)
        assert words in message
        assert "hunter" not in message

    def test_verifying_without_a_root_certificate(self) -> None:
        for mode in ("verify-ca", "verify-full"):
            url = parse(f"postgres://h/d?sslmode={mode}")
            for output in (url.asyncpg_kwargs, url.psycopg_conninfo):
                with pytest.raises(InvalidURL, match="needs a root certificate"):
                    output()


class TestShown:
    URL = "postgres://u:hunter2@h/d?sslpassword=hunter2&sslmode=require"

    def test_no_form_of_showing_it_shows_a_password(self) -> None:
        url = parse(self.URL)
        shown = [str(url), repr(url), f"{url}", f"{url!r}", f"{url}", repr([url])]
        assert not any("hunter2" in text for text in shown)
        assert str(url) == "postgresql://u:***@h:5432/d?sslmode=require&sslpassword=***"
        assert "hunter2" in url.unmasked()

    def test_it_is_a_value(self) -> None:
        url = parse(self.URL)
        assert url == parse(self.URL) == copy.deepcopy(url) == pickle.loads(pickle.dumps(url))
        assert len({url, parse(self.URL)}) == 1
        with pytest.raises(AttributeError):
            url.user = "other"

    @pytest.mark.parametrize(
        "leak",
        [
            "could not connect to postgres://u:hunter2@h/d",
            "postgresql+asyncpg://u:hunter2@h:1,i:2/d",
            "dsn postgres://u:hunter2/hunter2@hunter2@h/d?x=y",
            "postgres://:hunter2@h",
            "redis://u:hunter2@h/0",
            "?user=u&password=hunter2&x=y",
            "&sslpassword=hunter2",
            "PGPASSWORD=hunter2 psql",
            "host=h password=hunter2 dbname=d",
            "password='hunter2 hunter2 \\' hunter2' dbname=d",
            'password="hunter2 hunter2"',
            "password = hunter2",
            "{'password': 'hunter2'}",
            '{"password": "hunter2"}',
            "password='hunter2",
            "password='two\nlines hunter2'",
            "password='an escaped \\\nline hunter2'",
        ],
    )
    def test_redact_finds_passwords_by_their_surroundings(self, leak: str) -> None:
        masked = redact(leak)
        assert "hunter2" not in masked
        assert "***" in masked

    def test_redact_leaves_other_text_alone(self) -> None:
        for text in (
            'password authentication failed for user "u"',
            "see https://example.com:8080/a@b?c=d",
            "postgres://u@h:5432/d?sslmode=require",
            "no password supplied",
        ):
            assert redact(text) == text

    def test_a_url_masks_its_own_password_anywhere(self) -> None:
        url = parse("postgres://u:s%20%2F%C3%A9@h/d")
        for form in ("s /é", "s%20%2F%C3%A9", repr("s /é")):
            assert url.redact(f"<{form}>").strip("<>'") == "***"

    def test_a_short_password_masks_only_whole_words(self) -> None:
        assert parse("postgres://u:a@h/d").redact("a cat said 'a'") == "*** cat said '***'"

    def test_what_drivers_say_about_a_broken_url_can_be_masked(self) -> None:
        """asyncpg takes what stands before a raw slash for the port, and quotes it."""
        text = "postgres://u:hunter2/x@h/d"
        with pytest.raises(ValueError, match="hunter2") as caught:
            asyncpg.connect_utils._parse_connect_dsn_and_args(
                **(dict.fromkeys(ARGUMENTS) | {"dsn": text})
            )
        assert "hunter2" not in parse("postgres://u:hunter2@h").redact(str(caught.value))
        assert "hunter2" not in refused(text)


class TestOutputs:
    def test_nothing_is_left_for_the_environment_to_fill(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each driver reads PG* variables for what it is not told."""
        url = parse("postgres://u@h/d")
        for variable in TestEnvironment.ALL.keys() - {"PGSSLCERT", "PGSSLKEY"}:
            monkeypatch.setenv(variable, TestEnvironment.ALL[variable])
        kwargs = url.asyncpg_kwargs()
        kwargs.pop("timeout")
        addresses, parameters = asyncpg.connect_utils._parse_connect_dsn_and_args(
            **(dict.fromkeys(ARGUMENTS) | kwargs)
        )
        assert addresses == [("h", 5432)]
        assert (parameters.user, parameters.database) == ("u", "d")
        assert parameters.password() is None
        assert parameters.sslmode.name == "prefer"
        assert parameters.target_session_attrs == "any"
        told = conninfo_to_dict(url.psycopg_conninfo())
        assert told.keys() >= {"host", "port", "user", "dbname", "sslmode", "sslrootcert"}
        assert told.keys() >= {"passfile", "connect_timeout", "target_session_attrs"}

    @pytest.mark.parametrize(
        ("said", "seconds"), [("", 5), ("9", 9), ("1", 2), ("0", 130), ("-1", 130)]
    )
    def test_connect_timeout_is_the_same_and_never_endless(self, said: str, seconds: int) -> None:
        url = parse(f"postgres://h/d?connect_timeout={said}")
        assert url.asyncpg_kwargs()["timeout"] == seconds
        assert conninfo_to_dict(url.psycopg_conninfo())["connect_timeout"] == str(seconds)

    def test_parameters_can_be_set_and_defaulted(self) -> None:
        url = parse("postgres://h/d?application_name=mine")
        assert url.with_defaults(application_name="x", connect_timeout=2.5).parameters == (
            ("application_name", "mine"),
            ("connect_timeout", "3"),
        )
        assert url.with_parameters(application_name="x").get("application_name") == "x"
        with pytest.raises(InvalidURL):
            url.with_parameters(connect_timeout="soon")

    def test_system_roots_are_the_same_file_for_both(self) -> None:
        url = parse("postgres://h/d?sslrootcert=system")
        assert url.sslmode == "verify-full"
        context = url.asyncpg_kwargs()["ssl"]
        assert context.check_hostname
        told = conninfo_to_dict(url.psycopg_conninfo())
        assert Path(told["sslrootcert"]).is_file()
        assert context.cert_store_stats()["x509_ca"] > 0


class TestPasswordFile:
    @pytest.mark.parametrize(
        ("line", "found"),
        [
            ("h:1:d:u:secret", "secret"),
            ("*:*:*:*:secret", "secret"),
            ("h:1:d:u:a\\:b\\\\c", "a:b\\c"),
            ("h:1:d:u: spaces ", " spaces "),
            ("h:1:d:u:secret:rest", "secret"),
            ("#h:1:d:u:secret", None),
            ("\\h:1:d:u:secret", "secret"),
            ("i:1:d:u:secret", None),
            ("h:2:d:u:secret", None),
            ("h:1:e:u:secret", None),
            ("h:1:d:v:secret", None),
            ("h:1:d:u:", None),
            ("nonsense", None),
        ],
    )
    def test_lines(self, tmp_path: Path, line: str, found: str | None) -> None:
        assert password_for(self._file(tmp_path, line), Address("h", 1), "d", "u") == found

    def test_the_first_line_that_fits_wins(self, tmp_path: Path) -> None:
        file = self._file(tmp_path, "x:*:*:*:no\n*:*:*:*:first\nh:1:d:u:second")
        assert password_for(file, Address("h", 1), "d", "u") == "first"

    def test_a_socket_is_localhost_too(self, tmp_path: Path) -> None:
        file = self._file(tmp_path, "localhost:*:*:*:secret")
        assert password_for(file, Address("/run", 1), "d", "u") == "secret"

    def test_a_file_that_others_can_read_is_ignored_aloud(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        file = self._file(tmp_path, "*:*:*:*:secret")
        file.chmod(0o640)
        with caplog.at_level(logging.WARNING):
            assert password_for(file, Address("h", 1), "d", "u") is None
        assert "chmod 600" in caplog.text

    def _file(self, directory: Path, text: str) -> Path:
        file = directory / "pgpass"
        file.write_text(text + "\n")
        file.chmod(0o600)
        return file


# Text that libpq can carry: no NUL, no lone surrogate; and no control characters outside passwords.
plain = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)
secret = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
name = st.from_regex(
    r"[a-z][a-z0-9.-]{0,10}|[0-9a-f]{1,4}::[0-9]{1,2}|/[a-zA-Z0-9 _@%:-]{1,9}", fullmatch=True
)
host = name.filter(lambda text: " " not in text)
address = st.builds(Address, host, st.integers(1, 65535))
urls = st.builds(
    DatabaseURL,
    addresses=st.lists(address, min_size=1, max_size=3).map(tuple),
    user=plain,
    database=plain,
    password=st.none() | secret,
    sslmode=st.sampled_from(["disable", "allow", "prefer", "require"]),
    parameters=st.dictionaries(
        st.sampled_from(["application_name", "options"]), plain, max_size=2
    ).map(lambda pairs: tuple(sorted(pairs.items()))),
    home=st.just(Path("/nonexistent")),
)


@given(urls)
def test_a_url_is_read_back_from_its_text(url: DatabaseURL) -> None:
    assert DatabaseURL.parse(url.unmasked(), NOWHERE) == url


@given(urls)
def test_libpq_reads_our_text_as_we_do(url: DatabaseURL) -> None:
    told = conninfo_to_dict(url.unmasked())
    assert told["host"] == ",".join(a.host for a in url.addresses)
    assert told["port"] == ",".join(str(a.port) for a in url.addresses)
    assert (told["user"], told["dbname"]) == (url.user, url.database)
    assert told.get("password") == url.password


@given(urls)
def test_both_drivers_are_told_the_same(url: DatabaseURL) -> None:
    told = conninfo_to_dict(url.psycopg_conninfo())
    kwargs = url.asyncpg_kwargs()
    assert told["host"].split(",") == kwargs["host"]
    assert told["port"].split(",") == [str(port) for port in kwargs["port"]]
    assert (told["user"], told["dbname"]) == (kwargs["user"], kwargs["database"])
    password = kwargs["password"]
    assert told.get("password") == (password() if callable(password) else password) == url.password
    assert told["target_session_attrs"] == kwargs["target_session_attrs"]
    settings = {k: told[k] for k in ("application_name", "options") if k in told}
    assert settings == kwargs["server_settings"] == dict(url.parameters)
    assert told["sslmode"] in SSLMODES


@given(urls, st.text())
def test_no_password_survives_redaction(url: DatabaseURL, around: str) -> None:
    masked = url.redact(f"{around} {url.unmasked()} {url.psycopg_conninfo()}")
    if url.password and len(url.password) > 5 and url.password not in "*****":
        assert url.password not in masked
        assert quote(url.password, safe="") not in masked


@given(
    st.text(max_size=60) | st.text("postgres:/@?#%&=[],0aé", max_size=40).map("postgres://".__add__)
)
def test_any_text_is_a_url_or_an_error_of_ours(text: str) -> None:
    try:
        url = DatabaseURL.parse(text, NOWHERE)
    except InvalidURL:
        return
    assert DatabaseURL.parse(url.unmasked(), NOWHERE) == url
