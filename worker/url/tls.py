"""What an sslmode means, for both drivers: libpq's meaning.

https://www.postgresql.org/docs/current/libpq-ssl.html. asyncpg gets an SSLContext that we
build, because it reads root certificates, missing files and key permissions in other ways,
and only from a DSN or the environment.

| sslmode | TLS | certificate | name |
|---|---|---|---|
| disable | never | - | - |
| allow | if the server refuses plain text | not checked | not checked |
| prefer | if the server has it | not checked | not checked |
| require | always | only if there is a root certificate | not checked |
| verify-ca | always | checked | not checked |
| verify-full | always | checked | checked |

One step away from libpq: with allow and prefer a root certificate is not used at all. libpq
checks against it and, when that fails, goes on in plain text.
"""

from __future__ import annotations

import ssl
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from worker.errors import InvalidURL
from worker.url.parameters import FALLING_BACK, VERIFYING

if TYPE_CHECKING:
    from worker.url.database_url import DatabaseURL

NO_ROOT = "/dev/null/none"
"""A path that cannot exist: keeps libpq from finding ~/.postgresql/root.crt by itself."""

_IN_DSN = ("sslpassword", "ssl_min_protocol_version", "ssl_max_protocol_version")


@dataclass(frozen=True, slots=True)
class TLSFiles:
    """Paths of the files that take part; None where there is none. `root` may be "system"."""

    root: str | None = None
    cert: str | None = None
    key: str | None = None
    crl: str | None = None

    def items(self) -> list[tuple[str, str]]:
        pairs = (
            ("sslrootcert", self.root),
            ("sslcert", self.cert),
            ("sslkey", self.key),
            ("sslcrl", self.crl),
        )
        return [(name, path) for name, path in pairs if path]


def tls_files(url: DatabaseURL) -> TLSFiles:
    """The files named in the URL, else those in ~/.postgresql.

    Raises InvalidURL if one that is named is missing (libpq would go on without it), if
    the mode needs a root certificate and there is none, or if others can read the key.
    """
    if url.sslmode == "disable":
        return TLSFiles()
    cert = _named(url, "sslcert") or _in_home(url, "postgresql.crt")
    key = _key(url) if cert else None
    if url.sslmode in FALLING_BACK:
        return TLSFiles(cert=cert, key=key)
    root = _root(url)
    crl = (_named(url, "sslcrl") or _in_home(url, "root.crl")) if root else None
    return TLSFiles(root, cert, key, crl)


def asyncpg_tls(url: DatabaseURL) -> dict[str, object]:
    """The `ssl`, `direct_tls` and, if need be, `dsn` arguments for asyncpg.

    Falling back from TLS to plain text or the other way is asyncpg's own doing, and it does
    so only for a mode given by name; a client certificate for it then travels in a DSN.
    """
    if url.sslmode == "disable":
        return {"ssl": False, "direct_tls": False}
    files = tls_files(url)
    if url.sslmode not in FALLING_BACK:
        return {"ssl": _context(url, files), "direct_tls": url.get("sslnegotiation") == "direct"}
    said = [(name, value) for name, value in url.parameters if name in _IN_DSN]
    pairs = "&".join(f"{k}={quote(v, safe='')}" for k, v in [*files.items(), *said])
    dsn = {"dsn": f"postgresql://?{pairs}"} if pairs else {}
    return {"ssl": url.sslmode, "direct_tls": False, **dsn}


def psycopg_tls(url: DatabaseURL) -> dict[str, str]:
    """The ssl* parameters for libpq; the root certificate is always said."""
    files = tls_files(url)
    return {"sslmode": url.sslmode, "sslrootcert": NO_ROOT, **dict(files.items())}


def _context(url: DatabaseURL, files: TLSFiles) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = url.sslmode == "verify-full"
    context.verify_mode = ssl.CERT_REQUIRED if files.root else ssl.CERT_NONE
    context.minimum_version = _version(url.get("ssl_min_protocol_version") or "TLSv1.2")
    if highest := url.get("ssl_max_protocol_version"):
        context.maximum_version = _version(highest)
    if ssl.HAS_ALPN:
        context.set_alpn_protocols(["postgresql"])
    if files.root == "system":
        context.load_default_certs()
    elif files.root:
        _load(context, files.root, "sslrootcert")
    if files.crl or (files.root and url.get("sslcrldir")):
        _load(context, files.crl, "sslcrl", capath=url.get("sslcrldir"))
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_CHAIN
    if files.cert:
        _load_client(context, files, url.get("sslpassword") or "")
    return context


def _version(name: str) -> ssl.TLSVersion:
    return ssl.TLSVersion[name.replace(".", "_")]


def _load(
    context: ssl.SSLContext, path: str | None, name: str, *, capath: str | None = None
) -> None:
    try:
        context.load_verify_locations(cafile=path, capath=capath)
    except (ssl.SSLError, OSError) as error:
        raise _unusable(name, path or capath or "", str(error)) from None


def _load_client(context: ssl.SSLContext, files: TLSFiles, password: str) -> None:
    assert files.cert
    try:
        context.load_cert_chain(files.cert, files.key, password=lambda: password)
    except (ssl.SSLError, OSError) as error:
        why = f"certificate and key do not fit, or sslpassword is wrong ({error})"
        raise _unusable("sslcert", files.cert, why) from None


def _root(url: DatabaseURL) -> str | None:
    if url.get("sslrootcert") == "system":
        # libpq may carry an OpenSSL that looks elsewhere: both get the file that Python knows.
        return ssl.get_default_verify_paths().cafile or "system"
    root = _named(url, "sslrootcert") or _in_home(url, "root.crt")
    if root is None and url.sslmode in VERIFYING:
        raise InvalidURL(
            f"sslmode={url.sslmode} needs a root certificate, and there is none",
            why="no sslrootcert is given and ~/.postgresql/root.crt does not exist",
            hint="add sslrootcert=/path/to/ca.pem, or sslrootcert=system with verify-full",
        )
    return root


def _key(url: DatabaseURL) -> str:
    key = _named(url, "sslkey") or _in_home(url, "postgresql.key")
    if key is None:
        raise InvalidURL(
            "The client certificate has no private key",
            why="no sslkey is given and ~/.postgresql/postgresql.key does not exist",
            hint="add sslkey=/path/to/client.key",
        )
    state = Path(key).stat()
    others = stat.S_IRWXG | stat.S_IRWXO
    # libpq lets a key of root's be read by its group.
    allowed = stat.S_IRGRP if state.st_uid == 0 else 0
    if state.st_mode & others & ~allowed:
        raise _unusable("sslkey", key, "others can read it", hint=f"chmod 600 {key}")
    return key


def _named(url: DatabaseURL, name: str) -> str | None:
    path = url.get(name)
    if path and not Path(path).is_file():
        raise _unusable(name, path, "there is no such file")
    return path


def _in_home(url: DatabaseURL, name: str) -> str | None:
    path = url.home / ".postgresql" / name
    return str(path) if path.is_file() else None


def _unusable(name: str, path: str, why: str, *, hint: str = "") -> InvalidURL:
    return InvalidURL(
        f"The file {path} of {name} cannot be used",
        why=why,
        hint=hint or f"correct {name} in the database URL, or its PG{name.upper()} variable",
    )
