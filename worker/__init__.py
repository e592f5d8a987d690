"""Duerow: runs rows that fall due in Postgres."""

__version__ = "0.1.0"
