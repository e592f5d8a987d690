"""Predictions for 20 markets: several slow API calls each, then rows in a table."""
