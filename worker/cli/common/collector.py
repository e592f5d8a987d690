"""The garbage collector, while a program loads and while it works."""

from __future__ import annotations

import gc

USUAL = gc.get_threshold()

# Hardly anything of what is loaded is garbage: to look for it after every 700 objects, as usual,
# takes a sixth of the time that the imports take.
LOADING = 50_000  # objects


def while_loading() -> None:
    gc.set_threshold(LOADING)


def while_working() -> None:
    """As usual again, unless the app has said otherwise; without walking over what was loaded."""
    gc.freeze()
    if gc.get_threshold()[0] == LOADING:
        gc.set_threshold(*USUAL)
