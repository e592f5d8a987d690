"""Schedules: what enqueues jobs by the clock.

timing: when the ticks are. schedule: what a schedule says. plan: what to do about ticks that are
due. add: schedules made at run time.
"""
