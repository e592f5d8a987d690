"""Charge donations on schedule, never twice, over a payments API that fails."""
