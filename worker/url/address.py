"""Where a server listens: a host name and port, or the directory of a Unix socket."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

DEFAULT_PORT = 5432
SOCKET_DIRECTORIES = ("/run/postgresql", "/var/run/postgresql", "/tmp")  # noqa: S108 - libpq looks there too


@dataclass(frozen=True, slots=True)
class Address:
    """One server. An empty `host` means the local one, by socket if it has one."""

    host: str
    port: int = DEFAULT_PORT

    @property
    def is_socket(self) -> bool:
        return self.host.startswith("/")

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    def located(self) -> Address:
        """The same with a host, found as asyncpg finds it: an existing socket, else localhost.

        Each driver was built with a socket directory of its own, so neither is left to guess.
        """
        if self.host:
            return self
        for directory in SOCKET_DIRECTORIES:
            if Path(directory, f".s.PGSQL.{self.port}").exists():
                return Address(directory, self.port)
        return Address("localhost", self.port)
