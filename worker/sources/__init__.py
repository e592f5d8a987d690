"""The sources of rows: the built-in table, and tables that users already have."""
