"""The database URL against real servers: asyncpg and psycopg must come to the same verdict.

Three servers: with TLS for the name localhost, with TLS for the address 127.0.0.1, without TLS.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import asyncpg
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.postgres import Cluster, wanted_major
from worker.blocking import BlockingLink
from worker.embedded.account import server_account
from worker.embedded.binaries import Binaries, every_binaries
from worker.errors import InvalidURL
from worker.url import DatabaseURL, connect
from worker.url.parameters import SSLMODES

PASSWORD = "p@ss:w/rd?#%&=+ 'é\\\""

HBA = """
local   all       all                  trust
hostssl cert_only all     127.0.0.1/32 cert
hostssl tls_only  all     127.0.0.1/32 trust
hostnossl no_tls  all     127.0.0.1/32 trust
host    cert_only,tls_only,no_tls all 127.0.0.1/32 reject
host    secret    all     127.0.0.1/32 scram-sha-256
host    all       all     127.0.0.1/32 trust
"""
DATABASES = ("cert_only", "tls_only", "no_tls", "secret")


def run(*command: object, **kwargs: object) -> None:
    subprocess.run([str(part) for part in command], check=True, capture_output=True, **kwargs)


@dataclass(frozen=True)
class Certificates:
    """A CA, another CA, and what they signed; all as files of one directory."""

    directory: Path

    def __getattr__(self, name: str) -> str:
        stem, _, suffix = name.rpartition("_")
        return str(self.directory / f"{stem}.{suffix}")

    def make(self) -> None:
        for ca in ("ca", "stranger"):
            self._openssl("req", "-x509", "-nodes", "-subj", f"/CN={ca}", "-out", f"{ca}.crt", ca)
        self._sign("named", "/CN=ignored", "DNS:localhost")
        self._sign("addressed", "/CN=localhost", "IP:127.0.0.1")
        self._sign("client", "/CN=alice", "")

    def _openssl(self, *command: str) -> None:
        *start, name = command
        curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
        key = self.directory / f"{name}.key"
        run("openssl", *start, *curve, "-keyout", key, cwd=self.directory)
        key.chmod(0o600)

    def _sign(self, name: str, subject: str, alternative: str) -> None:
        self._openssl("req", "-nodes", "-subj", subject, "-out", f"{name}.csr", name)
        extensions = self.directory / f"{name}.ext"
        extensions.write_text(f"subjectAltName={alternative}\n" if alternative else "")
        signer = ("-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial")
        files = ("-in", f"{name}.csr", "-out", f"{name}.crt", "-extfile", extensions.name)
        run("openssl", "x509", "-req", *signer, *files, cwd=self.directory)


@dataclass(frozen=True)
class Servers:
    """Ports of the three on 127.0.0.1, and the certificates they have or trust."""

    named: int
    addressed: int
    plain: int
    sockets: Path  # of `named`
    certificates: Certificates


@pytest.fixture
def down() -> Iterator[int]:
    """A port on which nobody listens, and nobody else will."""
    with closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", 0))
        yield int(taken.getsockname()[1])


def tls_binaries() -> Binaries:
    """Programs that were built with OpenSSL, which those in the wheel were not."""
    for one in every_binaries():
        major = wanted_major()
        if major in (None, one.major) and b"libssl" in Path(one.postgres).read_bytes():
            return one
    pytest.skip("no Postgres with TLS on this machine; try: apt install postgresql")


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    binaries = tls_binaries()
    certificates = Certificates(tmp_path_factory.mktemp("certificates"))
    certificates.make()
    # Not in pytest's own directory: the server's account cannot enter that when we are root.
    with tempfile.TemporaryDirectory(prefix="duerow-url-") as name, ExitStack() as stack:
        place = Path(name)
        place.chmod(0o711)
        started = {}
        for server in ("named", "addressed", "plain"):
            settings = server_files(place, certificates, server)
            cluster = Cluster(binaries, settings, tcp=True, place=place)
            stack.callback(cluster.close)
            cluster.start()
            prepare(cluster.url)
            started[server] = cluster
        ports = {server: int(cluster.settings["port"]) for server, cluster in started.items()}
        sockets = Path(conninfo_to_dict(started["named"].url)["host"])
        yield Servers(**ports, sockets=sockets, certificates=certificates)


def server_files(place: Path, certificates: Certificates, server: str) -> dict[str, str]:
    """Settings, with the server's own copy of what they name."""
    hba = place / f"{server}.hba"
    hba.write_text(HBA)
    files = {"hba_file": hba}
    if server != "plain":
        for setting, source in (
            ("ssl_cert_file", f"{server}.crt"),
            ("ssl_key_file", f"{server}.key"),
            ("ssl_ca_file", "ca.crt"),
        ):
            files[setting] = place / f"{server}.{setting}"
            shutil.copy(certificates.directory / source, files[setting])
    for file in files.values():
        file.chmod(0o600)
        server_account().owns(file)
    settings = {setting: str(file) for setting, file in files.items()}
    return settings | {"shared_buffers": "2MB", "ssl": "off" if server == "plain" else "on"}


def prepare(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for database in DATABASES:
            connection.execute(f"create database {database}")
        connection.execute("create role alice login")
        connection.execute(psycopg.sql.SQL("create role bob login password {}").format(PASSWORD))


@pytest.fixture(autouse=True)
def empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home without .pgpass and .postgresql, and no PG* variables."""
    for name in os.environ:
        if name.startswith("PG") or name == "DYNO":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


TLS_USED = "select ssl from pg_stat_ssl where pid = pg_backend_pid()"


async def asyncpg_verdict(url: DatabaseURL) -> str:
    """tls, plain or refused, by asyncpg's own connect, by ours and by the heartbeat's, which must
    agree."""
    verdicts = {await asyncio.to_thread(heartbeat_verdict, url)}
    for attempt in (lambda: asyncpg.connect(**url.asyncpg_kwargs()), lambda: connect(url)):
        try:
            connection = await attempt()
        except (OSError, asyncpg.PostgresError, InvalidURL):
            verdicts.add("refused")
        else:
            verdicts.add("tls" if await connection.fetchval(TLS_USED) else "plain")
            await connection.close()
    assert len(verdicts) == 1, verdicts
    return verdicts.pop()


def heartbeat_verdict(url: DatabaseURL) -> str:
    link = BlockingLink(url, pooled=False, timeout=5.0)
    try:
        [(used,)] = link.fetch(TLS_USED)
    except (OSError, asyncpg.PostgresError, InvalidURL):
        return "refused"
    finally:
        link.close()
    return "tls" if used else "plain"


def psycopg_verdict(conninfo: str) -> str:
    try:
        with psycopg.connect(conninfo) as connection:
            (used,) = connection.execute(TLS_USED).fetchone()
    except psycopg.OperationalError:
        return "refused"
    return "tls" if used else "plain"


def our_psycopg_verdict(url: DatabaseURL) -> str:
    try:
        return psycopg_verdict(url.psycopg_conninfo())
    except InvalidURL:
        return "refused"


def url_for(
    server: int, mode: str, root: str | None, *, host: str = "localhost", database="duerow"
) -> DatabaseURL:
    root_said = f"&sslrootcert={quote(root)}" if root else ""
    return DatabaseURL.parse(
        f"postgres://duerow@{host}:{server}/{database}?sslmode={mode}{root_said}"
    )


EXPECTED = {
    # mode: (trusted, untrusted, no root certificate, wrong name, no TLS)
    "disable": ("plain", "plain", "plain", "plain", "plain"),
    "allow": ("plain", "plain", "plain", "plain", "plain"),
    "prefer": ("tls", "tls", "tls", "tls", "plain"),
    "require": ("tls", "refused", "tls", "tls", "refused"),
    "verify-ca": ("tls", "refused", "refused", "tls", "refused"),
    "verify-full": ("tls", "refused", "refused", "refused", "refused"),
}
SITUATIONS = ("trusted", "untrusted", "no root", "wrong name", "no TLS")


@pytest.mark.parametrize("situation", SITUATIONS)
@pytest.mark.parametrize("mode", SSLMODES)
async def test_both_drivers_take_an_sslmode_as_libpq_does(
    servers: Servers, mode: str, situation: str
) -> None:
    root = {"untrusted": servers.certificates.stranger_crt, "no root": None}.get(
        situation, servers.certificates.ca_crt
    )
    server = servers.plain if situation == "no TLS" else servers.named
    host = "127.0.0.1" if situation == "wrong name" else "localhost"
    url = url_for(server, mode, root, host=host)
    expected = EXPECTED[mode][SITUATIONS.index(situation)]

    assert await asyncpg_verdict(url) == expected
    assert our_psycopg_verdict(url) == expected
    if (mode, situation) != ("prefer", "untrusted"):  # libpq itself: see the next test
        assert psycopg_verdict(url.unmasked()) == expected


@pytest.mark.parametrize("place", ["url", "environment", "home"])
async def test_prefer_never_falls_back_to_plain_text_for_an_untrusted_certificate(
    servers: Servers, empty_home: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    """libpq, left alone, does; the one place where we differ from it, and say so in a note."""
    stranger = servers.certificates.stranger_crt
    if place == "environment":
        monkeypatch.setenv("PGSSLROOTCERT", stranger)
    if place == "home":
        (empty_home / ".postgresql").mkdir()
        shutil.copy(stranger, empty_home / ".postgresql" / "root.crt")
    url = url_for(servers.named, "prefer", stranger if place == "url" else None)

    assert psycopg_verdict(url.unmasked()) == "plain"
    assert our_psycopg_verdict(url) == "tls"
    assert await asyncpg_verdict(url) == "tls"
    if place != "home":
        assert any("sslrootcert is not used with sslmode=prefer" in note for note in url.notes)


@pytest.mark.parametrize(
    ("database", "expected"),
    [
        ("tls_only", dict.fromkeys(SSLMODES, "tls") | {"disable": "refused"}),
        (
            "no_tls",
            dict.fromkeys(SSLMODES, "refused")
            | {"disable": "plain", "allow": "plain", "prefer": "plain"},
        ),
    ],
)
@pytest.mark.parametrize("mode", SSLMODES)
async def test_allow_and_prefer_try_again_the_other_way(
    servers: Servers, mode: str, database: str, expected: dict[str, str]
) -> None:
    url = url_for(servers.named, mode, servers.certificates.ca_crt, database=database)

    assert await asyncpg_verdict(url) == expected[mode]
    assert our_psycopg_verdict(url) == expected[mode]
    assert psycopg_verdict(url.unmasked()) == expected[mode]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
async def test_verify_full_takes_addresses_and_common_names(servers: Servers, host: str) -> None:
    """The certificate: IP:127.0.0.1 as alternative name, CN=localhost."""
    url = url_for(servers.addressed, "verify-full", servers.certificates.ca_crt, host=host)

    assert await asyncpg_verdict(url) == "tls"
    assert our_psycopg_verdict(url) == "tls"


@pytest.mark.parametrize("mode", ["require", "verify-ca", "verify-full"])
async def test_a_root_certificate_in_the_home_directory_counts(
    servers: Servers, empty_home: Path, mode: str
) -> None:
    (empty_home / ".postgresql").mkdir()
    root = empty_home / ".postgresql" / "root.crt"

    shutil.copy(servers.certificates.stranger_crt, root)
    url = url_for(servers.named, mode, None)
    assert await asyncpg_verdict(url) == our_psycopg_verdict(url) == "refused"

    shutil.copy(servers.certificates.ca_crt, root)
    assert await asyncpg_verdict(url) == our_psycopg_verdict(url) == "tls"


async def test_a_root_certificate_from_the_environment_counts(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGSSLMODE", "require")
    monkeypatch.setenv("PGSSLROOTCERT", servers.certificates.stranger_crt)
    url = DatabaseURL.parse(f"postgres://duerow@localhost:{servers.named}/duerow")

    assert await asyncpg_verdict(url) == our_psycopg_verdict(url) == "refused"


async def test_a_named_root_certificate_that_is_missing_is_an_error(servers: Servers) -> None:
    """With require, libpq would connect without checking anything."""
    url = url_for(servers.named, "require", "/nowhere/ca.pem")

    with pytest.raises(InvalidURL, match=r"/nowhere/ca\.pem of sslrootcert cannot be used"):
        url.asyncpg_kwargs()
    with pytest.raises(InvalidURL, match="no such file"):
        url.psycopg_conninfo()


@pytest.mark.parametrize("mode", ["allow", "prefer", "require", "verify-full"])
async def test_a_client_certificate_logs_in(servers: Servers, mode: str) -> None:
    certificates = servers.certificates
    text = (
        f"postgres://alice@localhost:{servers.named}/cert_only?sslmode={mode}"
        f"&sslcert={quote(certificates.client_crt)}&sslkey={quote(certificates.client_key)}"
        f"&sslrootcert={quote(certificates.ca_crt)}"
    )
    url = DatabaseURL.parse(text)
    assert await asyncpg_verdict(url) == our_psycopg_verdict(url) == "tls"

    without = DatabaseURL.parse(text.partition("&")[0] + f"&sslrootcert={certificates.ca_crt}")
    assert await asyncpg_verdict(without) == our_psycopg_verdict(without) == "refused"


def test_a_key_that_others_can_read_is_refused(servers: Servers, tmp_path: Path) -> None:
    key = tmp_path / "open.key"
    shutil.copy(servers.certificates.client_key, key)
    key.chmod(0o644)
    url = DatabaseURL.parse(
        f"postgres://alice@localhost:{servers.named}/cert_only?sslmode=require"
        f"&sslcert={servers.certificates.client_crt}&sslkey={key}"
    )
    with pytest.raises(InvalidURL, match="chmod 600"):
        url.asyncpg_kwargs()
    assert psycopg_verdict(url.unmasked()) == "refused"  # so says libpq


async def test_a_password_of_awkward_characters_logs_in(servers: Servers) -> None:
    text = f"postgres://bob:{quote(PASSWORD, safe='')}@127.0.0.1:{servers.plain}/secret"
    url = DatabaseURL.parse(text)
    assert await asyncpg_verdict(url) == our_psycopg_verdict(url) == "plain"

    wrong = DatabaseURL.parse(text.replace("bob:p", "bob:q"))
    assert await asyncpg_verdict(wrong) == our_psycopg_verdict(wrong) == "refused"


@pytest.mark.parametrize("variable", [True, False])
async def test_a_password_file_logs_in(
    servers: Servers, empty_home: Path, monkeypatch: pytest.MonkeyPatch, variable: bool
) -> None:
    port = servers.plain
    url = DatabaseURL.parse(f"postgres://bob@127.0.0.1:{port}/secret", os.environ)
    assert await asyncpg_verdict(url) == our_psycopg_verdict(url) == "refused"

    file = empty_home / ("elsewhere" if variable else ".pgpass")
    escaped = PASSWORD.replace("\\", "\\\\").replace(":", "\\:")
    file.write_text(f"# comment\nother:*:*:bob:no\n127.0.0.1:{port}:secret:bob:{escaped}\n")
    file.chmod(0o600)
    if variable:
        monkeypatch.setenv("PGPASSFILE", str(file))
        url = DatabaseURL.parse(f"postgres://bob@127.0.0.1:{port}/secret")
    assert await asyncpg_verdict(url) == our_psycopg_verdict(url) == "plain"

    file.chmod(0o644)
    assert await asyncpg_verdict(url) == our_psycopg_verdict(url) == "refused"


async def test_each_host_gets_its_own_password_from_the_file(
    servers: Servers, empty_home: Path, down: int
) -> None:
    """The first server is down and has another password."""
    port = servers.plain
    escaped = PASSWORD.replace("\\", "\\\\").replace(":", "\\:")
    file = empty_home / ".pgpass"
    file.write_text(f"127.0.0.1:{down}:*:*:no\n127.0.0.1:{port}:*:*:{escaped}\n")
    file.chmod(0o600)
    url = DatabaseURL.parse(f"postgres://bob@127.0.0.1:{down},127.0.0.1:{port}/secret")

    connection = await connect(url)
    assert await connection.fetchval("select 1") == 1
    await connection.close()
    assert our_psycopg_verdict(url) == "plain"


async def test_a_service_file_is_read_for_both(servers: Servers, empty_home: Path) -> None:
    (empty_home / ".pg_service.conf").write_text(
        f"[other]\nhost=nowhere\n[mine]\n# here\nhost=127.0.0.1\nport={servers.plain}\n"
        "user=duerow\ndbname=duerow\n[last]\nhost=nowhere\n"
    )
    url = DatabaseURL.parse("postgres://?service=mine")
    assert await asyncpg_verdict(url) == our_psycopg_verdict(url) == "plain"


@pytest.mark.parametrize("form", ["?host={path}&port={port}", "{quoted}:{port}"])
async def test_a_unix_socket(servers: Servers, form: str) -> None:
    path = str(servers.sockets)
    place = form.format(path=path, quoted=quote(path, safe=""), port=servers.named)
    text = (
        f"postgres:///duerow{place}&user=duerow"
        if place[0] == "?"
        else f"postgres://duerow@{place}/duerow"
    )
    for mode in SSLMODES:  # which a socket ignores
        url = DatabaseURL.parse(text + ("&" if "?" in text else "?") + f"sslmode={mode}")
        assert await asyncpg_verdict(url) == our_psycopg_verdict(url) == "plain"


async def test_the_next_host_is_tried_when_the_first_is_down(servers: Servers, down: int) -> None:
    text = f"postgres://duerow@127.0.0.1:{down},localhost:{servers.named}/duerow"
    url = DatabaseURL.parse(f"{text}?sslmode=verify-full&sslrootcert={servers.certificates.ca_crt}")
    assert await asyncpg_verdict(url) == our_psycopg_verdict(url) == "tls"


async def test_the_next_host_is_tried_when_the_first_is_silent(servers: Servers) -> None:
    """A listener that never answers: asyncpg alone would spend its whole timeout on it."""
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        url = DatabaseURL.parse(
            f"postgres://duerow@127.0.0.1:{silent.getsockname()[1]},127.0.0.1:{servers.plain}"
            "/duerow?connect_timeout=2"
        )
        connection = await connect(url)
        assert connection.get_server_pid()
        await connection.close()
        assert our_psycopg_verdict(url) == "plain"


async def test_every_failure_is_told_when_no_host_answers(down: int) -> None:
    url = DatabaseURL.parse(f"postgres://u:hunter2@127.0.0.1:{down},127.0.0.1:1/d")
    with pytest.raises(OSError, match="Connect") as caught:
        await connect(url)
    assert len(caught.value.__notes__) == 1
    assert "hunter2" not in f"{caught.value}{caught.value.__notes__}"


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ("primary", "plain"),
        ("read-write", "plain"),
        ("prefer-standby", "plain"),
        ("standby", "refused"),
        ("read-only", "refused"),
    ],
)
async def test_target_session_attributes(servers: Servers, attributes: str, expected: str) -> None:
    url = DatabaseURL.parse(
        f"postgres://duerow@127.0.0.1:{servers.plain}/duerow?target_session_attrs={attributes}"
    )
    try:
        connection = await connect(url)
    except asyncpg.TargetServerAttributeNotMatched:
        verdict = "refused"
    else:
        await connection.close()
        verdict = "plain"
    assert verdict == our_psycopg_verdict(url) == expected


async def test_session_parameters_reach_the_server_from_both(servers: Servers) -> None:
    url = DatabaseURL.parse(
        f"postgres://duerow@127.0.0.1:{servers.plain}/duerow"
        "?application_name=it%27s%20me&options=-c%20work_mem%3D3MB%20-c%20my.words%3Da%5C%20b"
    )
    wanted = ["it's me", "3MB", "a b"]
    names = ("application_name", "work_mem", "my.words")

    connection = await connect(url)
    assert [await connection.fetchval(f"show {name}") for name in names] == wanted
    await connection.close()
    with psycopg.connect(url.psycopg_conninfo()) as session:
        assert [session.execute(f"show {name}").fetchone()[0] for name in names] == wanted


async def test_keepalives_are_set_as_libpq_sets_them(servers: Servers) -> None:
    text = f"postgres://duerow@127.0.0.1:{servers.plain}/duerow?keepalives_idle=17"
    for keepalives, expected in (("", (1, 17)), ("&keepalives=0", (0, 7200))):
        url = DatabaseURL.parse(text + keepalives)
        connection = await connect(url)
        ours = connection._transport.get_extra_info("socket")
        with psycopg.connect(url.psycopg_conninfo()) as session:
            for sock in (ours, socket.socket(fileno=os.dup(session.pgconn.socket))):
                on = sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                idle = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
                assert (on, idle) == expected
                if sock is not ours:
                    sock.close()
        await connection.close()


async def test_a_pool_connects_through_connect(servers: Servers) -> None:
    url = url_for(servers.named, "verify-full", servers.certificates.ca_crt)

    async def reach(*_: object, **kwargs: object) -> asyncpg.Connection:
        return await connect(url, **kwargs)

    async with asyncpg.create_pool(
        connect=reach, min_size=1, max_size=1, server_settings={"application_name": "pooled"}
    ) as pool:
        assert await pool.fetchval("show application_name") == "pooled"
        assert await pool.fetchval(TLS_USED)


async def test_sqlalchemy_reaches_the_same_server(servers: Servers, down: int) -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy")
    from sqlalchemy.ext.asyncio import create_async_engine

    port = servers.named
    text = f"postgres://bob:{quote(PASSWORD, safe='')}@127.0.0.1:{down},localhost:{port}/secret"
    url = DatabaseURL.parse(f"{text}?sslmode=verify-full&sslrootcert={servers.certificates.ca_crt}")
    engine = sqlalchemy.create_engine(url.sqlalchemy_url())
    with engine.connect() as connection:
        assert connection.execute(sqlalchemy.text(TLS_USED)).scalar_one()
    engine.dispose()

    for driver, arguments in (("psycopg", {}), ("asyncpg", url.asyncpg_kwargs())):
        engine = create_async_engine(url.sqlalchemy_url(driver), connect_args=arguments)
        async with engine.connect() as connection:
            assert (await connection.execute(sqlalchemy.text(TLS_USED))).scalar_one()
            user = (await connection.execute(sqlalchemy.text("select user"))).scalar_one()
            assert user == "bob"
        await engine.dispose()
