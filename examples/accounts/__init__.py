"""Refresh every account every 5 minutes, from a social network's slow API."""
