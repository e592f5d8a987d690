"""The database URL: read once by ourselves, then said to each driver in its own words.

asyncpg and psycopg read the same URL differently (TLS modes, password files, several
hosts, environment variables) and both may show its password in an error. Here the text
becomes a `DatabaseURL`, and each driver is told every detail explicitly.
"""

from __future__ import annotations

from worker.url.address import Address
from worker.url.connect import connect
from worker.url.database_url import DatabaseURL
from worker.url.redact import redact

__all__ = ["Address", "DatabaseURL", "connect", "redact"]
