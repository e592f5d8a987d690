"""Benchmarks: they print ratios to a reference measured in the same run, and judge no time."""
