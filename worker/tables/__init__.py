"""Adopting the tables that users already have: described, checked, added to, and left again."""
